"""What is to be reached, and whether a run's figures reach it."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from benchmarks.parts import (
    BULK,
    DIRECTIONS,
    OURS,
    SIZES,
    SSH,
    Busy,
    Connections,
    Delayed,
    FirstReply,
    RoundTrip,
    Scaling,
    Throughput,
)
from benchmarks.results import Results
from benchmarks.ways.libraries import SSHTunnelByHand, ZmqSSHParamiko
from benchmarks.ways.programs import SSHProgramBest, SSHProgramGCM


@dataclass(frozen=True)
class Bound:
    """A figure, and the least or the most that is wanted of it."""

    name: str
    value: float | None
    least: float | None = None
    most: float | None = None
    unit: str = ""
    precise: str = ".2f"

    @property
    def met(self) -> bool | None:
        """Whether it is reached; `None` if it was not measured or nothing is wanted."""
        if self.value is None or (self.least is None and self.most is None):
            return None
        if self.least is not None:
            return self.value >= self.least
        return self.most is not None and self.value <= self.most

    @property
    def text(self) -> str:
        value = "not measured" if self.value is None else f"{self.value:{self.precise}}{self.unit}"
        missed = " (missed)" if self.met is False else ""
        return f"{self.name} {value}{missed}".strip()


@dataclass(frozen=True)
class Row:
    """A line of the table of goals."""

    title: str
    against: str
    wanted: str
    bounds: Sequence[Bound]

    @property
    def met(self) -> str:
        answers = [bound.met for bound in self.bounds if (bound.least or bound.most) is not None]
        if not answers:
            return ""
        if False in answers:
            return "**no**"
        return "not all measured" if None in answers else "yes"

    @property
    def measured(self) -> str:
        return ", ".join(bound.text for bound in self.bounds)


def rows(results: Results) -> list[Row]:
    """Return the table of goals for what a run has measured."""
    return [row for part, make in _ROWS if part in results.figures for row in make(results)]


def _ratio(ours: float | None, other: float | None) -> float | None:
    return ours / other if ours is not None and other else None


def _ratios(
    results: Results, part: str, other: str, cells: Sequence[str], figure: str = "rate"
) -> dict[str, float | None]:
    """Return by how much ours is above another way, for each cell."""
    return {
        cell: _ratio(
            results.median(part, cell, OURS, figure), results.median(part, cell, other, figure)
        )
        for cell in cells
    }


def _over_cells(
    ratios: dict[str, float | None], *, mean: float | None = None, each: float | None = None
) -> list[Bound]:
    """Return the geometric mean and the lowest cell, with the least wanted of each."""
    known = {cell: ratio for cell, ratio in ratios.items() if ratio}
    if not known or len(known) < len(ratios):
        lacking = ", ".join(cell for cell in ratios if cell not in known)
        return [Bound(f"{lacking}:", None, least=mean or each)]
    lowest = min(known, key=lambda cell: known[cell])
    return [
        Bound("geometric mean", statistics.geometric_mean(known.values()), least=mean),
        Bound(f"lowest ({lowest})", known[lowest], least=each),
    ]


def _throughput(results: Results) -> list[Row]:
    part = Throughput.name
    sizes = results.about["scale"]["sizes"]
    cells, large = (
        [
            f"{size} {direction}"
            for size in sizes
            if SIZES[size] >= least
            for direction in DIRECTIONS
        ]
        for least in (0, SIZES["16 KiB"])
    )
    title = "throughput, PUSH to PULL, up and down"
    wanted = "geometric mean 1.5 or more, no cell under 0.9"
    wanted_of_best = "geometric mean 1.2 or more, no cell under 0.85"
    best = f"{SSHProgramBest.name} (aes128-gcm, Unix socket)"
    ssh = _over_cells(_ratios(results, part, SSH, cells), mean=1.5, each=0.9)
    of_best = _ratios(results, part, SSHProgramBest.name, cells)
    found = [
        Row(title, f"{SSH} as it comes", wanted, ssh),
        Row(title, best, wanted_of_best, _over_cells(of_best, mean=1.2, each=0.85)),
    ]
    for way, least in ((ZmqSSHParamiko.name, 10.0), (SSHTunnelByHand.name, 3.0)):
        bounds = _over_cells(_ratios(results, part, way, large), each=least)
        found.append(
            Row(f"{title}, from 16 KiB", way, f"{least:.0f} and more in each cell", bounds)
        )
    return found + _cpu(results)


def _cpu(results: Results) -> list[Row]:
    cells = [f"{BULK} {direction}" for direction in DIRECTIONS]
    title = f"CPU seconds per GB of the tunnel's own process, {BULK}"
    found = []
    for way, most in ((SSHProgramGCM.name, 1.3), (SSH, None)):
        ratios = _ratios(results, Throughput.name, way, cells, "cpu")
        bounds = [
            Bound(cell.rpartition(" ")[2], ratio, most=most) for cell, ratio in ratios.items()
        ]
        found.append(Row(title, way, f"at most {most}" if most else "", bounds))
    return found


def _round_trip(results: Results) -> list[Row]:
    def ratio(probability: float) -> float | None:
        [cell] = results.cells(RoundTrip.name)
        ours, ssh = (results.quantile(RoundTrip.name, cell, w, probability) for w in (OURS, SSH))
        return _ratio(ours, ssh)

    bounds = [Bound("p50", ratio(0.5), most=1.1), Bound("p99", ratio(0.99), most=0.1)]
    return [Row("round trip of 1 KiB", SSH, "p50 at most 1.1, p99 at most 0.1", bounds)]


def _busy(results: Results) -> list[Row]:
    cells = [cell for cell in results.cells(Busy.name) if cell != Busy.ROUND_TRIP]
    ratios = _ratios(results, Busy.name, SSH, cells)
    bounds = [Bound(cell, ratio, least=0.9) for cell, ratio in ratios.items()]
    ours, ssh = (results.quantile(Busy.name, Busy.ROUND_TRIP, way, 0.5) for way in (OURS, SSH))
    bounds.append(Bound("round trip p50", _ratio(ours, ssh), most=1.2))
    title = "while a Python thread of the program is busy"
    return [Row(title, SSH, "throughput 0.9 or more, round trip at most 1.2", bounds)]


def _delayed(results: Results) -> list[Row]:
    ratios = _ratios(results, Delayed.name, SSH, results.cells(Delayed.name))
    bounds = [
        Bound(cell, ratio, least=20 if cell.endswith("down") else 1.0, precise=".3g")
        for cell, ratio in ratios.items()
    ]
    title = "throughput at 100 ms round trip"
    return [Row(title, SSH, "download 20 or more, upload 1.0 or more", bounds)]


def _first_reply(results: Results) -> list[Row]:
    cells = results.cells(FirstReply.name)
    [ratio] = _ratios(results, FirstReply.name, SSH, cells, "seconds").values()
    title = "fresh program: start to first reply"
    return [Row(title, SSH, "at most 1.1", [Bound("", ratio, most=1.1)])]


def _sockets(results: Results) -> list[Row]:
    [cell] = results.cells(Scaling.name)
    rate, count, memory, idle = (
        results.median(Scaling.name, cell, OURS, figure)
        for figure in ("rate", "sockets", "memory", "idle")
    )
    most = (40e6 + 60e3 * (count or 0)) / 1e6
    bounds = [
        Bound("", rate, least=300, unit=" connects/s", precise=".0f"),
        Bound("", memory and memory / 1e6, most=most, unit=" MB", precise=".0f"),
        Bound("", None if idle is None else idle * 100, most=0.5, unit=" % of a core idle"),
    ]
    wanted = f"300 connects/s or more, at most {most:.0f} MB, idle at most 0.5 % of a core"
    return [Row(f"{cell} over one login", "the goal itself", wanted, bounds)]


def _connections(results: Results) -> list[Row]:
    one, two = Connections.WAYS
    bounds = [
        Bound(
            cell.rpartition(" ")[2],
            _ratio(
                results.median(Connections.name, cell, two),
                results.median(Connections.name, cell, one),
            ),
        )
        for cell in results.cells(Connections.name)
    ]
    return [Row("8 sockets at once, `connections=2`", f"`{one}`", "", bounds)]


_ROWS: list[tuple[str, Callable[[Results], list[Row]]]] = [
    (Throughput.name, _throughput),
    (RoundTrip.name, _round_trip),
    (Busy.name, _busy),
    (Delayed.name, _delayed),
    (FirstReply.name, _first_reply),
    (Scaling.name, _sockets),
    (Connections.name, _connections),
]
