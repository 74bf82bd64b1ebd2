"""Numbers of several runs in one Markdown table: means over seeds, and from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

Summary = Mapping[str, Any]
COLUMNS = (
    "arm", "start", "with the context", "after consolidation", "gain", "turns per win", "bytes sent", "device seconds",
    "decisions",
)  # fmt: skip


def arms_table(results: Mapping[str, Sequence[Summary]]) -> str:
    """Return one line an arm, and the floors of the first below.

    The context is that of the last cycle. Bytes are of one client and cycle; device seconds are those in which the
    cohort played, of the whole run.
    """
    lines = ["| " + " | ".join(COLUMNS) + " |", "|" + "---|" * len(COLUMNS)]
    lines += ["| " + " | ".join([arm, *_cells(runs)]) + " |" for arm, runs in results.items()]
    for name in ("random", "heuristic", "walkthrough"):
        rate = rates([run["floors"][name] for runs in results.values() for run in runs])
        lines.append(f"| {name} |  |  | {rate} |" + "  |" * (len(COLUMNS) - 4))
    return "\n".join(lines)


def rates(stats: Sequence[Mapping[str, Any]]) -> str:
    """Say win rates in percent."""
    return spread([100 * each["win_rate"] for each in stats], "{:.0f}", " %")


def spread(values: Sequence[float | None], form: str, unit: str = "") -> str:
    """Say a mean with its lowest and highest value; a price that some run never paid has no mean."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    low, mean, high = (form.format(value) for value in (min(known), fmean(known), max(known)))
    return f"{mean}{unit}" if low == high else f"{mean}{unit} ({low}-{high})"


def _cells(runs: Sequence[Summary]) -> list[str]:
    first, last = ([run["cycles"][place] for run in runs] for place in (0, -1))
    gains = [
        100 * (after["held_out"]["win_rate"] - before["held_out"]["win_rate"])
        for before, after in zip(first, last, strict=True)
    ]
    decisions = sorted({entry["decision"] for run in runs for entry in run["cycles"][1:]})
    return [
        rates([entry["held_out"] for entry in first]),
        rates([entry["teacher"] for entry in last if entry["teacher"]]),
        f"**{rates([entry['held_out'] for entry in last])}**",
        spread(gains, "{:+.0f}"),
        spread([entry["held_out"]["turns_per_win"] for entry in last], "{:.1f}"),
        spread([entry["uplink_bytes"] for entry in last], "{:,.0f}"),
        spread([_device_seconds(run) for run in runs], "{:.0f}"),
        ", ".join(decisions),
    ]


def _device_seconds(run: Summary) -> float:
    phases = [phase for entry in run["cycles"] for phase in entry["seconds"].items()]
    return float(sum(seconds for name, seconds in phases if name.partition("-")[0] == "collect"))
