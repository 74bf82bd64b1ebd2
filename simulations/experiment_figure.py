"""The figure of an experiment: held-out win rate by cycle, one line an arm, one thin line a seed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..protocol.records.summary import Summary
from .figures import COLOURS, GRID, INK, LABEL_GAP, MUTED, apart, save_figure

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def draw_arms(question: str, results: Mapping[str, Sequence[Summary]], folder: Path) -> list[Path]:
    """Write ``arms.png`` and ``arms.svg``, and return their paths."""
    return list(save_figure(lambda: _figure(question, results), folder / "arms"))


def mean_curve(runs: Sequence[Summary]) -> list[float]:
    """Mean held-out win rate of every cycle that all seeds have."""
    cycles = min(len(run.cycles) for run in runs)
    return [fmean(run.cycles[cycle].held_out.win_rate for run in runs) for cycle in range(cycles)]


def _figure(question: str, results: Mapping[str, Sequence[Summary]]) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import PercentFormatter

    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    axes, ends = figure.add_subplot(), list[tuple[str, float, str]]()
    for number, (arm, runs) in enumerate(results.items()):
        colour, curve = COLOURS[number % len(COLOURS)], mean_curve(runs)
        for run in runs:
            axes.plot([record.held_out.win_rate for record in run.cycles], color=colour, linewidth=0.7, alpha=0.45)
        axes.plot(curve, color=colour, linewidth=2.2, marker="o", markersize=5)
        ends.append((arm, curve[-1], colour))
    for (arm, rate, colour), height in zip(ends, apart([rate for _, rate, _ in ends], LABEL_GAP), strict=True):
        text = f"{arm} {100 * rate:.0f} %"
        place: Any = {"xycoords": ("axes fraction", "data"), "xytext": (6, 0), "textcoords": "offset points"}
        axes.annotate(text, (1, height), color=colour, va="center", annotation_clip=False, **place)
    axes.set_title(question, loc="left", fontsize=10.5, color=INK, pad=20)
    axes.text(0, 1.02, "held-out games won; thin: seeds, thick: their mean", transform=axes.transAxes, color=MUTED)
    axes.set_ylim(-0.02, 1.05)
    axes.set_xticks(range(max(len(runs[0].cycles) for runs in results.values())))
    axes.set_xlabel("cycle")
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis="y", color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
    return figure
