"""The figures of an experiment: win rate by cycle, one line an arm; and what arms pay for what they win.

The costs are bytes that a client has sent and seconds that a device has computed, cycle by cycle.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log10
from pathlib import Path
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from ..protocol.records.summary import Summary
from .experiment_table import cohort_seconds, spread
from .figures import COLOURS, INK, MUTED, frame_rates, label_ends, save_figure

PANELS = 2  # side by side


@dataclass(frozen=True, slots=True)
class Cost:
    """What one client has paid until the end of a cycle, and what the version then wins of the held-out games."""

    sent_bytes: float
    seconds: float
    win_rate: float


def costs(run: Summary) -> list[Cost]:
    """Return the cost of every cycle of a run, everything before it included; seconds are the cohort's mean."""
    sent = accumulate(record.uplink_bytes for record in run.cycles)
    seconds = accumulate(cohort_seconds(record) / run.clients for record in run.cycles)
    rates = (record.held_out.win_rate for record in run.cycles)
    return [Cost(*cost) for cost in zip(sent, seconds, rates, strict=True)]


def mean_costs(runs: Sequence[Summary]) -> list[Cost]:
    """Mean of every cycle that all seeds have."""
    return [
        Cost(*(fmean(getattr(cost, name) for cost in cycle) for name in ("sent_bytes", "seconds", "win_rate")))
        for cycle in zip(*(costs(run) for run in runs), strict=False)
    ]


def comparison(federated: Sequence[Summary], pooled: Sequence[Summary], local: Sequence[Summary]) -> str:
    """Say how near a federation comes to everything in one place, and how far it is from everybody alone, by seed."""
    ends = [[run.cycles[-1].held_out.win_rate for run in runs] for runs in (federated, pooled, local)]
    pairs = list(zip(*ends, strict=True))
    shares = [100 * own / best if best else None for own, best, _ in pairs]
    points = [100 * (own - alone) for own, _, alone in pairs]
    near, far = spread(shares, "{:.0f}", " %"), spread(points, "{:+.0f}", " points")
    return f"What the federation wins, over pooled: {near}; over local-only: {far}."


def draw_experiment(question: str, results: Mapping[str, Sequence[Summary]], folder: Path) -> list[Path]:
    """Write ``arms`` and ``costs``, each as ``.png`` and ``.svg``, and return their paths."""
    figures = {"arms": lambda: _arms_figure(question, results), "costs": lambda: _costs_figure(results)}
    return [path for name, figure in figures.items() for path in save_figure(figure, folder / name)]


def draw_worlds(question: str, worlds: Mapping[str, Mapping[str, Sequence[Summary]]], folder: Path) -> list[Path]:
    """Write ``worlds``, a panel of arms for each world, as ``.png`` and ``.svg``, and return their paths."""
    return list(save_figure(lambda: _worlds_figure(question, worlds), folder / "worlds"))


def _worlds_figure(question: str, worlds: Mapping[str, Mapping[str, Sequence[Summary]]]) -> Figure:
    across = min(PANELS, len(worlds))
    down = -(-len(worlds) // across)
    figure = Figure(figsize=(7.6 * across, 4.2 * down), layout="constrained")
    for number, (world, results) in enumerate(worlds.items(), start=1):
        _arms_panel(figure.add_subplot(down, across, number), world, results)
    figure.suptitle(question, fontsize=11, color=INK)
    return figure


def _arms_figure(question: str, results: Mapping[str, Sequence[Summary]]) -> Figure:
    figure = Figure(figsize=(7.6, 4.2), layout="constrained")
    _arms_panel(figure.add_subplot(), question, results)
    return figure


def _arms_panel(axes: Axes, title: str, results: Mapping[str, Sequence[Summary]]) -> None:
    ends = list[tuple[str, float, str]]()
    for number, (arm, runs) in enumerate(results.items()):
        colour, curve = COLOURS[number % len(COLOURS)], [cost.win_rate for cost in mean_costs(runs)]
        for run in runs:
            axes.plot([record.held_out.win_rate for record in run.cycles], color=colour, linewidth=0.7, alpha=0.45)
        axes.plot(curve, color=colour, linewidth=2.2, marker="o", markersize=5)
        ends.append((arm, curve[-1], colour))
    label_ends(axes, ends)
    axes.set_title(title, loc="left", fontsize=10.5, color=INK, pad=20)
    axes.text(0, 1.02, "held-out games won; thin: seeds, thick: their mean", transform=axes.transAxes, color=MUTED)
    axes.set_xticks(range(max(len(runs[0].cycles) for runs in results.values())))
    axes.set_xlabel("cycle")
    frame_rates(axes)


def _costs_figure(results: Mapping[str, Sequence[Summary]]) -> Figure:
    figure = Figure(figsize=(9.2, 4.2), layout="constrained")
    sent, computed = figure.subplots(1, 2, sharey=True)
    _panel(sent, results, lambda cost: cost.sent_bytes, "bytes that a client has sent", 1000)
    _panel(computed, results, lambda cost: cost.seconds, "seconds that a device has computed", 1)
    sent.text(0, 1.02, "held-out games won, mean of seeds; a mark a cycle", transform=sent.transAxes, color=MUTED)
    figure.legend(*sent.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False)
    return figure


def _panel(
    axes: Axes, results: Mapping[str, Sequence[Summary]], of: Callable[[Cost], float], name: str, linear: float
) -> None:
    """Draw win rates against a cost: linearly up to a first mark, in powers of ten beyond, since some pay nothing."""
    largest = linear
    for number, (arm, runs) in enumerate(results.items()):
        points, colour = mean_costs(runs), COLOURS[number % len(COLOURS)]
        paid, rates = [of(point) for point in points], [point.win_rate for point in points]
        axes.plot(paid, rates, color=colour, marker="o", markersize=4, label=arm, clip_on=False)
        largest = max(largest, *paid)
    axes.set_xscale("symlog", linthresh=linear)
    axes.set_xlim(-0.05 * linear, 1.3 * largest)
    powers = [linear * 10**power for power in range(1 + int(log10(largest / linear)))]
    axes.set_xticks([0, *powers], labels=["0", *(f"{power:,}" for power in powers)])
    axes.minorticks_off()
    axes.set_xlabel(name, color=INK)
    frame_rates(axes, "both")
