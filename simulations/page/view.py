"""What the page says of a run: text, tables and charts, from records that are read whole or not at all."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from ...protocol.errors import FedoelError
from ...protocol.records.summary import Summary
from ...server.summary import games_of
from ...server.version_list import KnownVersion
from ..live import Progress
from ..summary import headline
from . import behaviour, tables
from .behaviour import Card, Kept
from .chart import Chart, charts
from .log import RunLog
from .tables import Figure, Table
from .versions import Versions

T = TypeVar("T")
DAMAGE = (FedoelError, OSError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError)
NOTHING_YET = "No cycle has ended yet."
GATE = "What became of each cycle's candidate, and why."
SHOWN_ANSWERS, SHOWN_TURNS = 4, 6  # cards that are shown before the rest is unfolded
LESSONS = (
    "A weight says how much more (or less, if negative) likely the teacher makes a tactic; support is the Fisher "
    "information behind it."
)


@dataclass(frozen=True, slots=True)
class Section:
    """A part of the page: a heading, a note, tables and cards; `folded` ones are opened by a click."""

    name: str
    title: str
    note: str = ""
    tables: Sequence[Table] = ()
    folded: bool = False
    versions: Versions | None = None
    cards: Sequence[Card] = ()


@dataclass(frozen=True, slots=True)
class View:
    """Everything that the template shows.

    Parameters
    ----------
    title, headline, setting
        Name, result and circumstances of the run.
    state
        Where it stands now; empty if nothing tells.
    finished
        Whether it has come to its end.
    problems
        A sentence for every file that cannot be shown.
    games
        Which games the rates are about.
    """

    title: str
    headline: str
    setting: str = ""
    state: str = ""
    finished: bool = False
    problems: Sequence[str] = ()
    games: str = ""
    figures: Sequence[Figure] = ()
    charts: Sequence[Chart] = ()
    sections: Sequence[Section] = ()


def attempt(name: str, make: Callable[[], T], problems: list[str]) -> T | None:
    """Return what is made; where a damaged file does not allow that, add a sentence to `problems` and return None."""
    try:
        return make()
    except DAMAGE as error:
        known = isinstance(error, FedoelError)
        problems.append(str(error) if known else f"{name} is damaged ({type(error).__name__}: {error})")
        return None


def view_of(
    summary: Summary,
    log: RunLog,
    versions: Versions | None = None,
    kept: Kept | None = None,
    chosen: KnownVersion | None = None,
) -> View:
    """Return the view of a run of which at least one cycle has ended.

    Parameters
    ----------
    kept
        What the run has kept of its versions' behaviour; None in runs of an earlier release.
    chosen
        What an operator has made current since the last cycle.
    """
    title = f"{summary.scenario}, seed {summary.seed}"
    return View(
        title=title,
        headline=headline(summary, chosen),
        setting=f"Engine {summary.engine}, {summary.clients} clients. {tables.privacy_words(summary)}",
        state=state_words(log.progress),
        finished=bool(log.progress.finished),
        games=games_of(summary.cycles[0]),
        figures=tables.key_figures(summary, chosen),
        charts=charts(summary),
        sections=_sections(summary, log, versions, kept),
    )


def waiting_view(title: str, log: RunLog) -> View:
    """Return the view of a run of which no cycle has ended."""
    progress = log.progress
    return View(
        title=title, headline=NOTHING_YET, setting=progress.title, state=state_words(progress),
        finished=bool(progress.finished),
    )  # fmt: skip


def state_words(progress: Progress) -> str:
    """Say where a run stands."""
    if progress.finished:
        return f"finished after {timedelta(seconds=round(progress.now))}"
    if not progress.phase:
        return ""
    counted = f", {progress.done} of {progress.total}" if progress.total else ""
    return f"cycle {progress.cycle} of {progress.cycles}: {progress.phase}{counted}"


def _sections(summary: Summary, log: RunLog, versions: Versions | None, kept: Kept | None) -> list[Section]:
    lessons, budget, health = tables.lessons(summary), tables.budget(summary), tables.health(summary)
    families, transfer, floors = tables.families(summary), tables.transfer(summary), tables.floors(summary)
    rates = f"Rates with 95 % intervals, of {games_of(summary.cycles[0])}."
    if summary.by_fleet:
        rates += " The server has no games: what is known of a version is what it won in its trial on devices."
    total = f"{log.progress.now:.0f} seconds in all." if log.progress.title else ""
    sections = [
        Section("gate", "Trials and decisions", GATE, [tables.gate(summary)]),
        Section("lessons", "Lessons learned", LESSONS if lessons else "No lessons were learned.", lessons[:1]),
        Section("weaker", "Weaker lessons", "", lessons[1:], folded=True) if lessons[1:] else None,
        *(_behaviour(kept, summary.by_fleet) if kept else ()),
        Section("traffic", "Devices and bytes", "Bytes are means of one client.", [tables.traffic(summary)]),
        Section("health", "Fleet health", tables.health_words(summary), health) if health else None,
        Section("budget", "Privacy budget", tables.privacy_words(summary), [budget]) if budget else None,
        Section("versions", "Versions", versions.note, [versions.table], versions=versions) if versions else None,
        Section("cycles", "Results by cycle", rates, [tables.cycles(summary)]),
        Section("families", "Game families", "", [families]) if families else None,
        Section("transfer", "Transfer", "Games that nobody learned from.", [transfer]) if transfer else None,
        Section(
            "floors", "Floors and ceilings", "The same held-out games, played without what was learned, and by their "
            "own solutions.", [floors],
        ) if floors else None,
        Section("time", "Time", total, [tables.durations(summary, log.seconds)], folded=True),
        Section("configuration", "Configuration", "", [tables.configuration(summary)], folded=True),
    ]  # fmt: skip
    return [section for section in sections if section]


def _behaviour(kept: Kept, by_fleet: bool) -> Iterator[Section]:
    """Yield what versions answer before and after, and one game turn by turn, or why there is none."""
    cards = behaviour.answer_cards(kept)
    yield Section("answers", "Answers before and after", behaviour.answers_note(kept), cards=cards[:SHOWN_ANSWERS])
    if cards[SHOWN_ANSWERS:]:
        yield Section("more-answers", "More answers", folded=True, cards=cards[SHOWN_ANSWERS:])
    title = "One game, turn by turn"
    if kept.replay is None:
        if kept.now.parent:  # the first version is replayed beside its first successor
            yield Section("replay", title, behaviour.NO_GAMES if by_fleet else behaviour.NO_REPLAY)
        return
    turns = behaviour.replay_cards(kept.replay)
    yield Section("replay", title, behaviour.replay_note(kept.replay), cards=turns[:SHOWN_TURNS])
    if turns[SHOWN_TURNS:]:
        yield Section("later-turns", "Later turns", folded=True, cards=turns[SHOWN_TURNS:])
