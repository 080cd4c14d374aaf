"""A run's figures as tables, in Markdown or for a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from benchmarks import goals
from benchmarks.parts import (
    BULK,
    OURS,
    OURS_OPENSSH,
    Busy,
    Connections,
    Delayed,
    FirstReply,
    RoundTrip,
    Scaling,
    Throughput,
)
from benchmarks.results import Results

Lines = Iterator[str]
GOALS_HEAD = ("", "against", "wanted", "measured (ratio)", "met")


def show(results: Results) -> None:
    """Print the table of goals, and in a terminal nothing else."""
    if not sys.stdout.isatty():
        print(markdown(results), end="")
        return
    from rich.console import Console
    from rich.table import Table

    table = Table(*GOALS_HEAD, title=_headline(results), show_lines=True)
    for row in _goals(results):
        table.add_row(*(cell.replace("`", "").replace("**", "") for cell in row))
    Console().print(table)


def markdown(results: Results) -> str:
    """Return all tables, and what has to be known to read them."""
    return "\n".join(
        line
        for section in (_about, _goal_table, _throughputs, _round_trips, _others, _notes)
        for line in section(results)
    )


def _headline(results: Results) -> str:
    scale = results.about["scale"]
    quick = "QUICK RUN, NOT FOR COMPARISON: " if results.about["quick"] else ""
    return f"{quick}medians of {scale['rounds']} round(s) in turns, {results.about['date']}"


def _about(results: Results) -> Lines:
    machine, versions = results.about["machine"], results.about["versions"]
    yield f"{_headline(results)}; {results.about['seconds'] / 60:.0f} minutes in all."
    yield ""
    yield (
        f"Machine: {machine['system']} {machine['kernel']}, {machine['architecture']}, "
        f"{machine['cpus']} cores ({machine['cpu']}); load before: {machine['load']}. "
        "Program, server and peer are all on it."
    )
    yield "Versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()) + "."
    yield ""


def _goals(results: Results) -> list[list[str]]:
    return [
        [row.title, row.against, row.wanted or "(shown only)", row.measured, row.met]
        for row in goals.rows(results)
    ]


def _goal_table(results: Results) -> Lines:
    yield from _table(GOALS_HEAD, _goals(results))


def _throughputs(results: Results) -> Lines:
    yield from _figures(results, Throughput.name, "Throughput, MB/s at the receiver", "rate")
    cells = [cell for cell in results.cells(Throughput.name) if cell.startswith(BULK)]
    title = "CPU seconds per GB of the tunnel's own processes"
    yield from _figures(results, Throughput.name, title, "cpu", "{:.2f}", cells=cells)


def _round_trips(results: Results) -> Lines:
    for part in (RoundTrip.name, Busy.name):
        for cell in results.cells(part):
            lines = []
            for way in results.ways(part):
                if times := results.round_trips(part, cell, way):
                    quantiles = (results.quantile(part, cell, way, p) for p in (0.5, 0.99, 0.999))
                    lines.append([_bold(way), *(f"{q:.2f}" for q in quantiles), f"{len(times):,}"])
            if lines:
                busy = ", a Python thread being busy" if part == Busy.name else ""
                yield f"Round trip of 1 KiB, ms{busy}"
                yield ""
                yield from _table(("", "p50", "p99", "p99.9", "round trips"), lines)


def _others(results: Results) -> Lines:
    title = "Throughput, MB/s at the receiver, a Python thread being busy"
    cells = [cell for cell in results.cells(Busy.name) if cell != Busy.ROUND_TRIP]
    yield from _figures(results, Busy.name, title, "rate", cells=cells)
    warm_up = results.about["scale"]["delay_warm_up"]
    title = f"Throughput at 100 ms round trip, MB/s, after {warm_up:.0f} s"
    yield from _figures(results, Delayed.name, title, "rate")
    title = "The same, from the first message on"
    yield from _figures(results, Delayed.name, title, "rate_from_the_first")
    title = "From the start of a fresh program to its first reply, s"
    yield from _figures(results, FirstReply.name, title, "seconds", "{:.3f}")
    yield from _scaling(results)
    title = "Throughput of all sockets at once, MB/s at the receivers"
    yield from _figures(results, Connections.name, title, "rate")


def _scaling(results: Results) -> Lines:
    columns: dict[str, Callable[[float], str]] = {
        "rate": "{:.0f} connects/s".format,
        "memory": lambda value: f"{value / 1e6:.0f} MB",
        "idle": "{:.2%} of a core while idle".format,
    }
    for cell in results.cells(Scaling.name):
        yield f"{cell} over one login (memory and CPU: all processes of the tunnel)"
        yield ""
        lines = []
        for way in results.ways(Scaling.name):
            medians = (results.median(Scaling.name, cell, way, name) for name in columns)
            texts = [
                "failed" if value is None else text(value)
                for value, text in zip(medians, columns.values(), strict=True)
            ]
            lines.append([_bold(way), *texts])
        yield from _table(("", "rate", "memory", "CPU"), lines)


def _figures(
    results: Results,
    part: str,
    title: str,
    figure: str,
    style: str = "{:.0f}",
    cells: Sequence[str] | None = None,
) -> Lines:
    """A table with a line for each way and a column for each cell."""
    cells = results.cells(part) if cells is None else cells
    lines = []
    for way in results.ways(part):
        medians = [results.median(part, cell, way, figure) for cell in cells]
        if any(value is not None for value in medians):
            texts = ["" if value is None else style.format(value) for value in medians]
            lines.append([_bold(way), *texts])
    if lines:
        yield title
        yield ""
        yield from _table(("", *cells), lines)


def _notes(results: Results) -> Lines:
    notes = [f"{way} was not measured: {reason}" for way, reason in results.skipped.items()]
    ways = dict.fromkeys(way for part in results.figures for way in results.ways(part))
    for way in ways:
        tunnels, tries = results.openings(way)
        if tries > tunnels:
            notes.append(
                f"{way}: it took {tries} tries to open {tunnels} tunnels; only those that "
                "came up were measured"
            )
    for part, cell, way, errors in results.failures():
        times = "once" if len(errors) == 1 else f"{len(errors)} times"
        notes.append(f"{way} failed {times} in {part}, {cell}: {errors[-1]}")
    if left_out := results.about["left_out"]:
        notes.append(f"Left out, the time being up: {'; '.join(left_out)}")
    yield from (f"- {note}" for note in notes)
    yield ""


def _table(head: Sequence[str], lines: Sequence[Sequence[Any]]) -> Lines:
    yield f"| {' | '.join(head)} |"
    yield "|---" * len(head) + "|"
    for line in lines:
        yield f"| {' | '.join(line)} |"
    yield ""


def _bold(way: str) -> str:
    return f"**{way}**" if way in (OURS, OURS_OPENSSH) else way
