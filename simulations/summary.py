"""The summary of a run in words and as text tables. Standard library only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from ..protocol.errors import ConfigError
from ..protocol.records.summary import Floor, Lesson, Stats, Summary
from ..server.evaluation import UNKNOWN
from ..server.summary import NAME, REMEDY, games_of, read_summary
from ..server.version_list import KnownVersion


def load_summary(run: Path, *, ended: bool = True) -> Summary:
    """Read ``summary.json`` of a run, as views need it.

    Parameters
    ----------
    ended
        Whether the run has to be finished.

    Raises
    ------
    ConfigError
        If the file cannot be read, or lacks cycles, a family of games, or in a simulation that has ended the floor
        without a language model.
    """
    summary = read_summary(run)
    if missing := _missing(summary, ended):
        raise ConfigError(f"{run / NAME} lacks {missing}; {REMEDY}")
    return summary


NOT_MEASURED = "not measured"


def headline(summary: Summary, chosen: KnownVersion | None = None) -> str:
    """Say the result of a run in one or two sentences, with its uncertainty.

    Parameters
    ----------
    chosen
        What an operator has made current since the last cycle; the result is then that of this version.
    """
    if chosen is not None:
        return _chosen_headline(summary, chosen)
    if summary.by_fleet:
        return _fleet_headline(summary)
    first, last = summary.cycles[0].held_out, summary.cycles[-1].held_out
    random = summary.floors.random
    cycles = len(summary.cycles) - 1
    if not cycles:
        return f"After the warm start {percent(last)} of held-out games are won; random play wins {percent(random)}."
    if last.low > first.high or last.high < first.low:
        verdict = "The intervals do not overlap."
    else:
        verdict = "The intervals overlap, so this run alone does not show a change."
    return (
        f"In {_counted(cycles, 'cycle')} the held-out win rate went from {percent(first)} to "
        f"{percent(last)} over {last.episodes} games; random play wins {percent(random)}. {verdict}"
    )


def _fleet_headline(summary: Summary) -> str:
    """Say the result of a run in which nobody has played held-out games."""
    last = summary.cycles[-1]
    promoted = sum(record.decision == "promoted" for record in summary.cycles)
    cycles = _counted(len(summary.cycles) - 1, "cycle")
    said = f"In {cycles}, trials on devices promoted {_counted(promoted, 'version')}."
    if not last.held_out.episodes:
        return f"{said} How often the current version wins is not measured."
    return f"{said} In its trial the current one won {percent(last.held_out)} of {games_of(last)}."


def _chosen_headline(summary: Summary, chosen: KnownVersion) -> str:
    """Say what the version won that an operator has chosen."""
    first, results = summary.cycles[0], current_results(summary, chosen)
    said = f"An operator has made version {chosen.name[:8]} of cycle {chosen.cycle} current."
    if not results.episodes:
        return f"{said} How often it wins is not measured."
    if summary.by_fleet:
        return f"{said} In its trial it won {percent(results)} of {games_of(first)}."
    before = f", the first version {percent(first.held_out)}" if chosen.cycle else ""
    return (
        f"{said} It won {percent(results)} of {results.episodes} held-out games{before}; random play wins "
        f"{percent(summary.floors.random)}."
    )


def current_results(summary: Summary, chosen: KnownVersion | None = None) -> Stats:
    """Return what the current version won of the games that a summary reports, of no episodes if nobody measured it.

    Parameters
    ----------
    chosen
        As for `headline`. Other games than held-out ones decided about a candidate that was refused.
    """
    if chosen is None:
        return summary.cycles[-1].held_out
    reported = (record.held_out for record in summary.cycles if record.version == chosen.name)
    return next(reported, (chosen.results if summary.by_fleet else None) or UNKNOWN)


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun if number == 1 else f'{noun}s'}"


def percent(stats: Stats) -> str:
    """Say a win rate with its 95 % interval: ``55 % (45-65 %)``."""
    if not stats.episodes:
        return NOT_MEASURED
    return f"{stats.win_rate:.0%} ({100 * stats.low:.0f}-{stats.high:.0%})".replace("%", " %")


def lesson_words(lesson: Lesson) -> str:
    """Say what was learned: a positive weight makes a tactic more likely, a negative one less."""
    return f"{'do' if lesson.weight >= 0 else 'avoid'}: {lesson.tactic}"


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
    names = summary.families if len(summary.families) > 1 else []
    rows = [["cycle", "decision", wins_column(summary), "teacher", *names]]
    for cycle in summary.cycles:
        rates = [percent(cycle.held_out), percent(cycle.teacher) if cycle.teacher else "-"]
        rows.append([str(cycle.cycle), cycle.decision, *rates, *(percent(cycle.families[n]) for n in names)])
    for name, floor in measured_floors(summary).items():
        by_family = [percent(floor.families[n]) for n in names]
        rows.append(["", name.replace("_", " "), percent(floor), "", *by_family])
    return aligned(rows)


def wins_column(summary: Summary) -> str:
    """Say what the column of win rates is about."""
    return f"wins of {games_of(summary.cycles[0])}" if summary.by_fleet else "held-out wins"


def measured_floors(summary: Summary) -> dict[str, Floor]:
    """Return the floors that were played, by name."""
    return {name: floor for name, floor in summary.floors.named().items() if floor.episodes}


def aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return a table as text, in columns with two spaces between them."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows)
    return "\n".join(line.rstrip() for line in lines)


def _missing(summary: Summary, ended: bool) -> str:
    """Name the first thing that views need and a summary has not, or nothing."""
    if not summary.cycles:
        return "cycles"
    if type(summary.config.get("clients")) is not int:
        return "config.clients"
    if ended and summary.floors.tactics_only is None and summary.engine != "flower":  # a deployment has no such run
        return "floors.tactics_only"
    needed = [(f"cycles[{i}].families", record.families, summary.families) for i, record in enumerate(summary.cycles)]
    needed += [
        (f"floors.{name}.families", floor.families, summary.families) for name, floor in summary.floors.named().items()
    ]
    needed += [(f"cycles[{i}].transfer", record.transfer, summary.transfer) for i, record in enumerate(summary.cycles)]
    return next((f"{path}.{name}" for path, present, names in needed for name in names if name not in present), "")
