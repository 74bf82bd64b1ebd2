"""What a run leaves behind in ``summary.json``: read, checked, and said in words. Standard library only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..protocol.errors import ConfigError

Stats = Mapping[str, Any]
Summary = Mapping[str, Any]

STATS = ("win_rate", "low", "high", "episodes", "score", "turns_per_win", "tokens_per_win")
FLOORS = ("random", "heuristic", "walkthrough", "tactics_only")
TOP = ("scenario", "seed", "engine", "private", "config", "floors", "cycles")
ENTRY = (
    "cycle", "version", "decision", "reason", "held_out", "teacher", "families", "gate", "lessons", "kl",
    "uplink_bytes", "downlink_bytes", "accepted", "refused", "adapter_bytes", "seconds",
)  # fmt: skip


def load_summary(run: Path) -> dict[str, Any]:
    """Read and check ``summary.json`` of a run.

    Raises
    ------
    ConfigError
        If the file is missing, is not JSON, or lacks something that a summary has.
    """
    path = run / "summary.json"
    remedy = "give the folder of a run, or finish the run with: fedoel simulate ... --resume"
    try:
        summary = json.loads(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}; {remedy}") from error
    except ValueError as error:
        raise ConfigError(f"{path} is not valid JSON ({error}); {remedy}") from error
    if missing := _missing(summary):
        raise ConfigError(f"{path} lacks {missing}; {remedy}")
    return dict(summary)


def read_summary(run: Path) -> dict[str, Any]:
    """Read ``summary.json`` of a run of this process, which may lack what is added to it at the end."""
    return dict(json.loads((run / "summary.json").read_bytes()))


def headline(summary: Summary) -> str:
    """Say the result of a run in one or two sentences, with its uncertainty."""
    first, last = summary["cycles"][0]["held_out"], summary["cycles"][-1]["held_out"]
    random = summary["floors"]["random"]
    cycles = len(summary["cycles"]) - 1
    if not cycles:
        return f"After the warm start {percent(last)} of held-out games are won; random play wins {percent(random)}."
    if last["low"] > first["high"] or last["high"] < first["low"]:
        verdict = "The intervals do not overlap."
    else:
        verdict = "The intervals overlap, so this run alone does not show a change."
    return (
        f"In {cycles} {'cycle' if cycles == 1 else 'cycles'} the held-out win rate went from {percent(first)} to "
        f"{percent(last)} over {last['episodes']} games; random play wins {percent(random)}. {verdict}"
    )


def percent(stats: Stats) -> str:
    """Say a win rate with its 95 % interval: ``55 % (45-65 %)``."""
    return f"{stats['win_rate']:.0%} ({100 * stats['low']:.0f}-{stats['high']:.0%})".replace("%", " %")


def families(summary: Summary) -> list[str]:
    """Return the names of the game families of a run, in the order of its summary."""
    return list(summary["cycles"][0]["families"])


def transfer(summary: Summary) -> list[str]:
    """Return the names of the games that every version played and nobody learned from; older runs had none."""
    return list(summary["cycles"][0].get("transfer") or {})


def lesson_words(lesson: Mapping[str, Any]) -> str:
    """Say what was learned: a positive weight makes a tactic more likely, a negative one less."""
    return f"{'do' if lesson['weight'] >= 0 else 'avoid'}: {lesson['tactic']}"


def refused_words(refused: Mapping[str, int]) -> str:
    """Say how many vectors were refused, and why."""
    return ", ".join(f"{count} {reason}" for reason, count in sorted(refused.items())) or "none"


def size(count: float) -> str:
    """Say a number of bytes for a person: ``2.1 kB``."""
    for unit, scale in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= scale:
            return f"{count / scale:.1f} {unit}"
    return f"{count:.0f} B"


def table(summary: Summary) -> str:
    """Return the results of a run as aligned text: one line a cycle, one column a family."""
    names = families(summary) if len(families(summary)) > 1 else []
    rows = [["cycle", "decision", "held-out wins", "teacher", *names]]
    for entry in summary["cycles"]:
        rates = [percent(entry[key]) if entry[key] else "-" for key in ("held_out", "teacher")]
        rows.append([str(entry["cycle"]), entry["decision"], *rates, *(percent(entry["families"][n]) for n in names)])
    for name in FLOORS:
        floor = summary["floors"][name]
        by_family = [percent(floor["families"][n]) for n in names]
        rows.append(["", name.replace("_", " "), percent(floor), "", *by_family])
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _missing(summary: Any) -> str:
    """Name the first thing that a summary should have and this one has not, or nothing."""
    if missing := _lacks(summary, TOP):
        return missing
    if not isinstance(summary["cycles"], list) or not summary["cycles"]:
        return "cycles"
    if missing := _lacks(summary["floors"], FLOORS):
        return f"floors.{missing}"
    for name in FLOORS:
        if missing := _lacks(summary["floors"][name], (*STATS, "families")):
            return f"floors.{name}.{missing}"
    for number, entry in enumerate(summary["cycles"]):
        if missing := _lacks(entry, ENTRY) or _lacks(entry["held_out"], STATS):
            return f"cycles[{number}].{missing}"
    return ""


def _lacks(table: Any, names: tuple[str, ...]) -> str:
    if not isinstance(table, dict):
        return "a table"
    return next((name for name in names if name not in table), "")
