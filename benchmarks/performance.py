"""The table of performance: all parts, in rounds, the ways of a cell in turns."""

from __future__ import annotations

import signal
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from benchmarks import plots, report
from benchmarks.environment import machine, versions
from benchmarks.parts import PARTS, QUICK, Part, Scale
from benchmarks.results import Results
from benchmarks.site import Site
from tests.sshd import OpenSSHServer

JSON, MARKDOWN = "performance.json", "performance.md"
OUTPUT = Path(__file__).parent / "results"
FAILURES = 2
"""So often a way may fail in a cell, and twice as often in a part, before it is left out there."""


def run(
    *,
    quick: bool = False,
    rounds: int | None = None,
    only: Sequence[str] = (),
    output: Path | None = None,
) -> None:
    """Measure, print the table of goals, and write the results.

    Args:
        quick: less of everything.
        rounds: how often each cell is measured.
        only: names of parts; default: all.
        output: the directory for the results. Default: the package's own, for a full run; a
            part of it or a quick one is written nowhere.

    """
    scale = QUICK if quick else Scale()
    if rounds:
        scale = replace(scale, rounds=rounds)
    if output is None and not quick and not only:
        output = OUTPUT
    if output:
        output.mkdir(parents=True, exist_ok=True)
        plots.check()
    results = measure(scale, only or list(PARTS), quick=quick)
    report.show(results)
    if output:
        write(results, output)


def write(results: Results, output: Path) -> None:
    """Write the figures, the table and the plots."""
    results.write(output / JSON)
    (output / MARKDOWN).write_text(report.markdown(results))
    plots.write(results, output)


def rewrite(directory: Path) -> None:
    """Write the table and the plots anew from the figures in a directory."""
    plots.check()
    results = Results.read(directory / JSON)
    report.show(results)
    write(results, directory)


def measure(scale: Scale, names: Sequence[str], *, quick: bool = False) -> Results:
    """Measure the named parts, and return all figures."""
    results = Results()
    started = time.monotonic()
    results.about = {
        "quick": quick,
        "scale": asdict(scale),
        "machine": machine(),
        "versions": versions(),
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
    }
    parts = [PARTS[name](scale) for name in names]
    plan = [(part, cell) for part in parts for cell in part.cells()]
    ways = {(part, cell): _ways(part, cell, results) for part, cell in plan}
    left_out: list[str] = []
    total = scale.rounds * sum(map(len, ways.values()))
    with _ended_by_signal(), OpenSSHServer() as server, _progress(total) as advance:
        site = Site(server, scale.patience)
        for number in range(scale.rounds):
            for part, cell in plan:
                turn = _turn(ways[part, cell], number)
                for way in turn:
                    advance(f"round {number + 1} of {scale.rounds}: {part.name}, {cell}, {way}")
                    if time.monotonic() < started + scale.limit:
                        _take(results, site, part, cell, way)
                    else:
                        left_out.append(f"{part.name}, {cell}, {way}")
    results.about["left_out"] = left_out
    results.about["seconds"] = round(time.monotonic() - started)
    return results


def _ways(part: Part, cell: str, results: Results) -> list[str]:
    """Return the ways that can be measured; tell about the others once."""
    found = []
    for way in part.ways(cell):
        reason = part.missing(cell, way)
        if reason is None:
            found.append(way)
        elif way not in results.skipped:
            results.skipped[way] = reason
            print(f"{way} is not measured: {reason}", file=sys.stderr)
    return found


def _turn(ways: list[str], number: int) -> list[str]:
    """Return the ways in the order of a round: each is first once."""
    first = number % len(ways) if ways else 0
    return ways[first:] + ways[:first]


def _take(results: Results, site: Site, part: Part, cell: str, way: str) -> None:
    failed: Counter[str] = Counter()
    for its_part, its_cell, its_way, errors in results.failures():
        if (its_part, its_way) == (part.name, way):
            failed[its_cell] += len(errors)
    if failed[cell] >= FAILURES or failed.total() >= 2 * FAILURES:
        return
    try:
        figures = part.measure(site, cell, way)
    except Exception as exc:
        # Of a program's traceback the last line.
        figures = {"error": f"{type(exc).__name__}: {exc}".strip().splitlines()[-1][-300:]}
        print(f"{way} failed in {part.name}, {cell}: {figures['error']}", file=sys.stderr)
    results.add(part.name, cell, way, figures)


@contextmanager
def _ended_by_signal() -> Iterator[None]:
    """Have SIGTERM and SIGHUP end the run as Ctrl-C does, so that nothing is left."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _progress(total: int) -> Iterator[Callable[[str], None]]:
    if not sys.stderr.isatty():
        yield _Lines(total)
        return
    from rich import progress as bars
    from rich.console import Console

    columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
    times = (bars.TimeElapsedColumn(), bars.TimeRemainingColumn())
    with bars.Progress(*columns, *times, console=Console(stderr=True)) as progress:
        task = progress.add_task("", total=total, completed=-1)
        yield lambda title: progress.update(task, advance=1, description=title)


class _Lines:
    """Progress where there is no terminal: a line for each tenth."""

    def __init__(self, total: int) -> None:
        self._total = total
        self._done = -1
        self._tenth = -1

    def __call__(self, title: str) -> None:
        self._done += 1
        if (tenth := 10 * self._done // self._total) > self._tenth:
            self._tenth = tenth
            print(f"{10 * tenth} %: {title}", file=sys.stderr)
