"""The tables of the page, from the summary of a run. They hold values; the template lays them out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from ...protocol.records.summary import CycleRecord, Lesson, PrivacyPromise, Stats, Summary
from ...server import health as fleet
from ...server.summary import games_of
from ...server.version_list import KnownVersion
from ..summary import (
    current_results,
    lesson_words,
    measured_floors,
    percent,
    refused_words,
    size,
    wins_column,
)

LESSONS = 12  # that are shown before the rest is unfolded
HISTORY = 24  # cycles whose lessons are shown


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the page. The template sets numbers to the right, and floats with four digits.

    Parameters
    ----------
    caption
        What it shows, for those who come to it by the keyboard or hear it.
    head, rows
        Names of the columns, and the cells.
    decisions
        The column that says a decision, which the template marks by a sign; -1 if there is none.
    """

    caption: str
    head: Sequence[str]
    rows: Sequence[Sequence[object]]
    decisions: int = -1


@dataclass(frozen=True, slots=True)
class Figure:
    """One of the key figures at the top."""

    name: str
    value: str
    note: str


def key_figures(summary: Summary, chosen: KnownVersion | None = None) -> list[Figure]:
    """Return the few numbers that say how a run does.

    Parameters
    ----------
    chosen
        What an operator has made current since the last cycle.
    """
    first, last, results = summary.cycles[0], summary.cycles[-1], current_results(summary, chosen)
    won = percent(results).partition(" (")
    made = chosen.cycle if chosen else last.cycle
    known = first.held_out.episodes and results.episodes and made
    before = f"; {first.held_out.win_rate:.0%} before".replace("%", " %") if known else ""
    note = f"95 % interval {won[2].removesuffix(')')}{before}" if won[1] else f"wins of {games_of(last)}"
    promoted = sum(record.decision == "promoted" for record in summary.cycles)
    current = f"{chosen.name[:8]} is current, which an operator chose" if chosen else f"{last.version[:8]} plays"
    asked = [record for record in summary.cycles if record.accepted or record.refused]
    sums = asked[-1] if asked else last
    return [
        Figure(wins_column(summary), won[0], note),
        Figure("promoted", f"{promoted} of {len(summary.cycles) - 1}", f"cycles; version {current}"),
        Figure(
            "devices in the sum", str(sums.accepted), f"of {summary.clients}; not in it: {refused_words(sums.refused)}"
        ),
        Figure("sent per device", size(sums.uplink_bytes), f"{size(sums.downlink_bytes)} received"),
        _privacy_figure(summary, last),
    ]


def _privacy_figure(summary: Summary, last: CycleRecord) -> Figure:
    promise = summary.privacy
    if summary.plaintext:
        return Figure("privacy", "none", "devices sent words about what happened on them")
    if promise.epsilon is None or promise.delta is None:
        kind, how = ("sums only", "") if promise.secure_sum else ("vectors", " one by one")
        return Figure("privacy", kind, f"reached the server{how}; no noise was added")
    left = max(promise.epsilon - last.epsilon, 0.0)
    return Figure(
        "epsilon spent", f"{last.epsilon:.2f}", f"of {promise.epsilon:g} at delta {promise.delta:g}; {left:.2f} left"
    )


def privacy_words(summary: Summary) -> str:
    """Say what the server could see, and what noise promises."""
    privacy = summary.privacy
    if summary.plaintext:
        return "This run was not private: devices sent words about what happened on them."
    seen = "The server saw sums over cohorts only." if privacy.secure_sum else "The server saw every vector."
    if privacy.delta is None:
        return f"{seen} No noise was added."
    spent = summary.cycles[-1].epsilon
    return f"{seen} Noise keeps each device's part within epsilon {spent:.2f} at delta {privacy.delta:g}."


def cycles(summary: Summary) -> Table:
    """Return what was measured of the version after each cycle."""
    head = ("cycle", "version", "decision", wins_column(summary), "teacher", "turns per win", "tokens per win", "KL")
    rows = [
        [e.cycle, e.version, e.decision, percent(e.held_out), _rate(e.teacher)]
        + ["-" if price is None else round(price, 1) for price in (e.held_out.turns_per_win, e.held_out.tokens_per_win)]
        + [round(e.kl, 3), *_probes(e.probes)]
        for e in summary.cycles
    ]
    return Table("Results by cycle", (*head, "perplexity", "KL to base", "instructions"), rows, decisions=2)


def _probes(probes: Mapping[str, float]) -> list[str]:
    """Say what a version does outside of games, beside the base model; older runs lack some probes."""
    said = {
        "perplexity": "{:.2f} (base {:.2f})", "kl_to_base": "{:.3f}", "instructions": "{:.0%} (base {:.0%})",
    }  # fmt: skip
    return [
        form.format(probes[name], probes.get(f"base_{name}")).replace("%", " %") if name in probes else "-"
        for name, form in said.items()
    ]


def families(summary: Summary) -> Table | None:
    """Return the results by family; None where the server has no games."""
    by_cycle = {record.cycle: record.families for record in summary.cycles}
    return None if summary.by_fleet else _by_name("Wins by game family", by_cycle, summary.families)


def transfer(summary: Summary) -> Table | None:
    """Return the results on games that nobody learned from; None if there are none."""
    by_cycle = {record.cycle: record.transfer for record in summary.cycles}
    names = summary.transfer
    return _by_name("Wins of games that nobody learned from", by_cycle, names) if names else None


def _by_name(caption: str, by_cycle: Mapping[int, Mapping[str, Stats]], names: Sequence[str]) -> Table:
    rows = [[cycle, *(percent(results[name]) for name in names)] for cycle, results in by_cycle.items()]
    return Table(caption, ("cycle", *names), rows)


def lessons(summary: Summary) -> list[Table]:
    """Return the history of lessons: a row each with its weight in every recent cycle, the strongest now first.

    The first table has the strongest ones, the second the rest; neither is empty.
    """
    learned = [record for record in summary.cycles if record.lessons][-HISTORY:]
    history: dict[tuple[str, int | None], dict[int, Lesson]] = {}
    for record in learned:
        for lesson in record.lessons:
            history.setdefault((lesson.tactic, lesson.cluster), {})[record.cycle] = lesson
    numbers = [record.cycle for record in reversed(learned)]  # the newest beside the lesson, the oldest may scroll

    def strength(by_cycle: Mapping[int, Lesson]) -> list[float]:
        return [-abs(by_cycle[number].weight) if number in by_cycle else 0.0 for number in numbers]

    rows = []
    for by_cycle in sorted(history.values(), key=strength):
        newest = by_cycle[max(by_cycle)]
        weights = [f"{by_cycle[n].weight:+.2f}" if n in by_cycle else "" for n in numbers]
        rows.append([lesson_words(newest), *weights, round(newest.support)])
    head = ("lesson", *(f"cycle {number}" for number in numbers), "support")
    parts = (("Strongest lessons", rows[:LESSONS]), ("Weaker lessons", rows[LESSONS:]))
    return [Table(caption, head, part) for caption, part in parts if part]


def gate(summary: Summary) -> Table:
    """Return what became of each cycle's candidate, and why."""
    head = ("cycle", "decision", "reason", "current", "teacher", "candidate")
    results = [e.gate.named().values() if e.gate else (None,) * 3 for e in summary.cycles]
    rows = zip(summary.cycles, results, strict=True)
    return Table(
        "Trials and decisions", head, [[e.cycle, e.decision, e.reason, *map(_rate, played)] for e, played in rows], 1
    )


def traffic(summary: Summary) -> Table:
    """Return which devices took part, and what they sent and received."""
    head = ("cycle", "in the sum", "dropped out or refused", "up, each client", "down, each client", "adapter")
    rows = [
        [e.cycle, e.accepted, refused_words(e.refused), *map(size, (e.uplink_bytes, e.downlink_bytes, e.adapter_bytes))]
        for e in summary.cycles
    ]
    return Table("Devices and bytes", head, rows)


def health(summary: Summary) -> list[Table]:
    """Return how the devices are by class, in the last cycle in which they said it, and in all; often none."""
    known = fleet.known_health(summary.cycles)
    return [Table(f"Fleet health, {of}", fleet.HEAD, fleet.rows(counts)) for of, counts in known]


def health_words(summary: Summary) -> str:
    """Say what the numbers of `health` are; empty if there are none."""
    known = fleet.known_health(summary.cycles)
    return fleet.note(known[0][1]) if known else ""


def budget(summary: Summary) -> Table | None:
    """Return the epsilon that was spent after each cycle, and what is left; None without noise."""
    promise: PrivacyPromise = summary.privacy
    if promise.epsilon is None:
        return None
    rows = [
        [record.cycle, f"{record.epsilon:.3f}", f"{max(promise.epsilon - record.epsilon, 0.0):.3f}"]
        for record in summary.cycles
    ]
    return Table("Privacy budget", ("cycle", "epsilon spent", "left"), rows)


def durations(summary: Summary, logged: Mapping[int, Mapping[str, float]]) -> Table:
    """Return the times of the log, and of the summary where the log has none."""
    rows = [
        (e.cycle, phase, round(seconds, 1))
        for e in summary.cycles
        for phase, seconds in {**e.seconds, **logged.get(e.cycle, {})}.items()
    ]
    return Table("Seconds by phase", ("cycle", "phase", "seconds"), rows)


def floors(summary: Summary) -> Table | None:
    """Return what play without learning wins; None where the server has no games."""
    if summary.by_fleet:
        return None
    names, others = summary.families, summary.transfer
    rows = []
    for name, floor in measured_floors(summary).items():
        rates = [floor.families[n] for n in names] + [floor.transfer.get(n) for n in others]
        rows.append([name.replace("_", " "), percent(floor), *map(_rate, rates)])
    return Table("Floors and ceilings", ("play", "all games", *names, *others), rows)


def configuration(summary: Summary) -> Table:
    """Return all settings."""
    return Table("Configuration", ("setting", "value"), sorted(summary.config.items()))


def _rate(stats: Stats | None) -> str:
    return percent(stats) if stats else "-"
