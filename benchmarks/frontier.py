"""The privacy frontier: what is won after the last cycle, by epsilon, from the results of `fedoel experiment privacy`.

    python benchmarks/frontier.py runs/experiment-privacy

Writes frontier.png and frontier.svg beside the results, and prints the share of the gain without noise that is left.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from fedoel.protocol.records.summary import Stats, Summary
from fedoel.simulations.experiment import RESULTS, read_results
from fedoel.simulations.figures import LEARNED, MUTED, frame_rates, save_figure

Runs = Sequence[Summary]
NO_NOISE = 1000.0  # stands for no noise in the experiment


def main(folder: Path) -> None:
    """Draw and print."""
    results = {float(arm.removeprefix("epsilon ")): runs for arm, runs in read_results(folder / RESULTS).items()}
    arms = sorted(results.items())
    free = gain(results[NO_NOISE])
    for epsilon, runs in arms:
        rates = ", ".join(f"{100 * last(run).win_rate:.0f}" for run in runs)
        left = f"{gain(runs) / free:.0%} of that without noise"
        print(f"epsilon {epsilon:g}: {rates} %, gain {100 * gain(runs):.0f} points, {left}")
    for path in save_figure(lambda: figure(arms), folder / "frontier"):
        print(path)


def last(run: Summary) -> Stats:
    """Held-out results after the last cycle."""
    return run.cycles[-1].held_out


def gain(runs: Runs) -> float:
    """Mean gain over the warm start, a fraction."""
    return fmean(last(run).win_rate - run.cycles[0].held_out.win_rate for run in runs)


def figure(arms: Sequence[tuple[float, Runs]]) -> Any:
    """One point a seed with its interval, and a line through the means; no noise at the right."""
    from matplotlib.figure import Figure

    drawn = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes, places = drawn.add_subplot(), range(len(arms))
    axes.plot(places, [fmean(last(run).win_rate for run in runs) for _, runs in arms], color=LEARNED, linewidth=2)
    for place, (_, runs) in zip(places, arms, strict=True):
        for run in runs:
            end = last(run)
            axes.plot([place, place], [end.low, end.high], color=LEARNED, linewidth=1, alpha=0.5)
            axes.plot([place], [end.win_rate], marker="o", color=LEARNED, markersize=5)
    floor = fmean(run.floors.random.win_rate for _, runs in arms for run in runs)
    axes.axhline(floor, color=MUTED, linewidth=1, linestyle=(0, (1, 2)))
    axes.annotate("random play", (0, floor), xytext=(0, 4), textcoords="offset points", color=MUTED)
    axes.set_xticks(list(places), [f"{epsilon:g}" if epsilon < NO_NOISE else "no noise" for epsilon, _ in arms])
    axes.set_xlabel("epsilon of the whole run")
    axes.set_title("Held-out games won after the last cycle", loc="left", fontsize=10.5)
    frame_rates(axes)
    return drawn


if __name__ == "__main__":
    main(Path(sys.argv[1]))
