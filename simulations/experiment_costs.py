"""What arms pay for what they win, cycle by cycle: bytes that a client has sent, seconds that a device has computed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from math import log10
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING

from ..protocol.records.summary import Summary
from .experiment_table import cohort_seconds, spread
from .figures import COLOURS, GRID, INK, MUTED, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


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
        Cost(*(fmean(getattr(each, name) for each in cycle) for name in ("sent_bytes", "seconds", "win_rate")))
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


def draw_costs(results: Mapping[str, Sequence[Summary]], folder: Path) -> list[Path]:
    """Write ``costs.png`` and ``costs.svg``, and return their paths."""
    return list(save_figure(lambda: _figure(results), folder / "costs"))


def _figure(results: Mapping[str, Sequence[Summary]]) -> Figure:
    from matplotlib.figure import Figure

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
    from matplotlib.ticker import PercentFormatter

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
    axes.set_ylim(-0.02, 1.05)
    axes.set_xlabel(name, color=INK)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)
