"""The figures of a run: what is written to the JSON file, and read for the table and the plots."""

from __future__ import annotations

import json
import math
import statistics
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Results:
    """What was measured.

    Attributes:
        about: machine, versions, scale, when and how long.
        figures: part, cell, way: a list with each round's figures; a failed one is `{"error"}`.
        skipped: which ways were not measured, and why.

    """

    about: dict[str, Any] = field(default_factory=dict)
    figures: dict[str, dict[str, dict[str, list[dict[str, Any]]]]] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)

    def add(self, part: str, cell: str, way: str, figures: dict[str, Any]) -> None:
        self.figures.setdefault(part, {}).setdefault(cell, {}).setdefault(way, []).append(figures)

    def cells(self, part: str) -> list[str]:
        return list(self.figures.get(part, {}))

    def ways(self, part: str) -> list[str]:
        """Return the ways of which a part has figures."""
        cells = self.figures.get(part, {})
        return list(dict.fromkeys(way for cell in cells.values() for way in cell))

    def rounds(self, part: str, cell: str, way: str) -> list[dict[str, Any]]:
        """Return the rounds that did not fail."""
        rounds = self.figures.get(part, {}).get(cell, {}).get(way, [])
        return [figures for figures in rounds if "error" not in figures]

    def failures(self) -> Iterable[tuple[str, str, str, list[str]]]:
        """The part, cell, way and errors of all that failed."""
        for part, cells in self.figures.items():
            for cell, ways in cells.items():
                for way, rounds in ways.items():
                    errors = [figures["error"] for figures in rounds if "error" in figures]
                    if errors:
                        yield part, cell, way, errors

    def median(self, part: str, cell: str, way: str, figure: str = "rate") -> float | None:
        """Return the median over the rounds, or `None` where there is nothing."""
        values = [f[figure] for f in self.rounds(part, cell, way) if figure in f]
        return statistics.median(values) if values else None

    def round_trips(self, part: str, cell: str, way: str) -> list[float]:
        """Return the milliseconds of all rounds' round trips together, sorted."""
        counts: Counter[float] = Counter()
        for figures in self.rounds(part, cell, way):
            for microseconds, count in figures.get("histogram", {}).items():
                counts[int(microseconds) / 1e3] += count
        return sorted(counts.elements())

    def quantile(self, part: str, cell: str, way: str, probability: float) -> float | None:
        """Return a quantile of `round_trips`, or `None` where there is nothing."""
        times = self.round_trips(part, cell, way)
        return times[min(len(times) - 1, int(len(times) * probability))] if times else None

    def openings(self, way: str) -> tuple[int, int]:
        """Return how many tunnels of a way came up, and how many tries that took."""
        rounds = [
            figures
            for part, cells in self.figures.items()
            for cell in cells
            for figures in self.rounds(part, cell, way)
            if "tries" in figures
        ]
        return sum(f["tunnels"] for f in rounds), sum(f["tries"] for f in rounds)

    def write(self, path: Path) -> None:
        everything = {"about": self.about, "skipped": self.skipped, "figures": self.figures}
        path.write_text(_json(everything, depth=4) + "\n")

    @classmethod
    def read(cls, path: Path) -> Results:
        return cls(**json.loads(path.read_text()))


def histogram(microseconds: list[int]) -> dict[str, int]:
    """Return how many round trips took so long, by their time in steps of 1 %."""
    step = math.log(1.01)
    steps = (round(math.log(max(1, time)) / step) for time in sorted(microseconds))
    return dict(Counter(f"{math.exp(number * step):.0f}" for number in steps))


def _json(value: Any, depth: int, indent: str = "") -> str:
    """Spread a value over lines down to `depth`; what is below it takes one."""
    if depth and isinstance(value, dict) and value:
        inner = indent + " "
        items = [f"{inner}{json.dumps(k)}: {_json(v, depth - 1, inner)}" for k, v in value.items()]
        return "{\n" + ",\n".join(items) + f"\n{indent}}}"
    return json.dumps(value)
