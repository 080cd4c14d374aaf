"""Plots of a run's figures, for light and dark backgrounds."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from benchmarks.parts import DIRECTIONS, OURS, OURS_OPENSSH, SIZES, SSH, RoundTrip, Throughput
from benchmarks.results import Results
from benchmarks.ways.libraries import Direct, SSHTunnelByHand, ZmqSSH, ZmqSSHParamiko
from benchmarks.ways.programs import AsyncSSH, SSHProgramBest

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

THROUGHPUT, LATENCY = "throughput.svg", "latency.svg"
GREY = "#808080"
"""Of text and frames: stands out from white and from black alike."""

NINES = (0.0, 0.5, 0.9, 0.99, 0.999)
"""The cumulative shares that are named on the axis; each nine takes the same room."""

PROBABILITIES = [1 - 10 ** (-step / 60) for step in range(181)]


class Style(NamedTuple):
    """How a way is drawn: colours of Okabe and Ito's palette, and a shape beside each."""

    colour: str
    marker: str
    dashes: str = "-"
    width: float = 1.4


STYLES = {
    OURS: Style("#D55E00", "o", width=3.2),
    OURS_OPENSSH: Style("#E69F00", "o", "--", 3.2),
    SSHProgramBest.name: Style("#56B4E9", "s"),
    SSH: Style("#0072B2", "s", "--"),
    Direct.name: Style(GREY, "", ":"),
    AsyncSSH.name: Style("#009E73", "^"),
    SSHTunnelByHand.name: Style("#CC79A7", "v"),
    ZmqSSH.name: Style("#B59F00", "D", "--"),
    ZmqSSHParamiko.name: Style("#B59F00", "D"),
}


def check() -> None:
    """See that plots can be drawn.

    Raises:
        SystemExit: matplotlib is not installed.

    """
    if not importlib.util.find_spec("matplotlib"):
        raise SystemExit("the plots need matplotlib: pip install '.[bench]'")


def write(results: Results, output: Path) -> None:
    """Draw what was measured into `output`."""
    import matplotlib as mpl

    mpl.use("Agg")
    colours = dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color"), GREY
    )
    # The salt keeps the ids in the file the same from run to run.
    with mpl.rc_context({**colours, "svg.hashsalt": "benchmarks", "font.size": 10}):
        if Throughput.name in results.figures:
            _save(_throughput(results), output / THROUGHPUT)
        if RoundTrip.name in results.figures:
            _save(_latency(results), output / LATENCY)


def _throughput(results: Results) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2))
    panels = figure.subplots(1, 2, sharey=True)
    sizes = results.about["scale"]["sizes"]
    for axes, direction in zip(panels, DIRECTIONS, strict=True):
        cells = [f"{size} {direction}" for size in sizes]
        for way, style in STYLES.items():
            medians = [results.median(Throughput.name, cell, way) for cell in cells]
            if any(value is not None for value in medians):
                rates = [math.nan if value is None else value for value in medians]
                _line(axes, [SIZES[size] for size in sizes], rates, way, style)
        _frame(axes)
        axes.set_xscale("log", base=2)
        axes.set_yscale("log")
        axes.set_xticks([SIZES[size] for size in sizes], sizes)
        rates_named = [1, 3, 10, 30, 100, 300, 1000, 3000]
        axes.set_yticks(rates_named, [f"{rate}" for rate in rates_named])
        axes.set_yticks([], minor=True)
        axes.set_title({"up": "up: the program sends", "down": "down: it receives"}[direction])
        axes.set_xlabel("message size")
    panels[0].set_ylabel("MB/s at the receiver")
    _legend(figure, panels[0])
    return figure


def _latency(results: Results) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9, 5.2))
    axes = figure.subplots()
    [cell] = results.cells(RoundTrip.name)
    for way, style in STYLES.items():
        times = results.round_trips(RoundTrip.name, cell, way)
        if times:
            x = [times[min(len(times) - 1, int(len(times) * p))] for p in PROBABILITIES]
            _line(axes, x, [_nines(p) for p in PROBABILITIES], way, style, marks=False)
    _frame(axes)
    axes.set_xscale("log")
    ticks = [0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100]
    low, high = axes.get_xlim()
    ticks = [tick for tick in ticks if low <= tick <= high]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_yticks([_nines(p) for p in NINES], [f"{p:.1%}".replace(".0%", "%") for p in NINES])
    axes.set_ylim(0, _nines(NINES[-1]))
    axes.set_xlabel("round trip of 1 KiB, ms")
    axes.set_ylabel("share of the round trips that took no longer")
    _legend(figure, axes)
    return figure


def _nines(probability: float) -> float:
    return -math.log10(1 - probability)


def _line(
    axes: Axes, x: list[Any], y: list[float], way: str, style: Style, *, marks: bool = True
) -> None:
    ours = way in (OURS, OURS_OPENSSH)
    axes.plot(
        x,
        y,
        style.dashes,
        color=style.colour,
        marker=style.marker if marks else "",
        markersize=7 if ours else 5,
        linewidth=style.width,
        zorder=3 if ours else 2,
        label=way.replace("`", ""),
    )


def _frame(axes: Axes) -> None:
    axes.patch.set_alpha(0)
    axes.grid(color=GREY, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure, axes: Axes) -> None:
    handles, labels = axes.get_legend_handles_labels()
    figure.tight_layout(rect=(0, 0.16, 1, 1))
    legend = figure.legend(
        handles, labels, loc="lower center", ncols=3, frameon=False, handlelength=3
    )
    for text in legend.get_texts():
        if text.get_text().startswith(OURS):
            text.set_weight("bold")


def _save(figure: Figure, path: Path) -> None:
    figure.savefig(path, transparent=True, metadata={"Date": None})
