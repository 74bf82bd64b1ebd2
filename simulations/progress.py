"""Where a run stands, as one frozen value: events go in, a new value comes out. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from ..protocol.records.events import (
    CycleFinished,
    Decided,
    Event,
    LessonsLearned,
    PhaseFinished,
    PhaseProgress,
    PhaseStarted,
    RunFinished,
    RunStarted,
    TrafficCounted,
)
from ..protocol.records.summary import Lesson
from .summary import lesson_words, percent, refused_words, size

BLOCKS = "▁▂▃▄▅▆▇█"
SHOWN_LESSONS = 6


@dataclass(frozen=True, slots=True)
class Progress:
    """What a view shows of a run; `zero` is the time `t` at which the phase began."""

    scenario: str = ""
    seed: int = 0
    engine: str = ""
    clients: int = 0
    cycles: int = 0
    cycle: int = 0
    phase: str = ""
    done: int = 0
    total: int | None = None
    zero: float = 0.0
    now: float = 0.0
    rates: tuple[float, ...] = ()
    latest: str = ""
    traffic: str = ""
    lessons: tuple[str, ...] = ()
    decision: str = ""
    finished: str = ""


def after(progress: Progress, event: Event) -> Progress:
    """Return where the run stands after an event."""
    progress = replace(progress, now=event.t)
    match event:
        case RunStarted():
            names = ("scenario", "seed", "engine", "clients", "cycles")
            return replace(Progress(now=event.t), **{name: getattr(event, name) for name in names})
        case PhaseStarted():
            return replace(progress, cycle=event.cycle, phase=event.phase, total=event.total, zero=progress.now, done=0)
        case PhaseProgress():
            return replace(progress, done=event.done, total=event.total)
        case TrafficCounted():
            return replace(progress, traffic=traffic_words(event))
        case LessonsLearned():
            return replace(progress, lessons=tuple(lesson_lines(event.lessons)))
        case Decided():
            return replace(progress, decision=decision_words(event))
        case CycleFinished():
            held_out = event.entry.held_out
            # A resumed run may say a cycle again: it replaces what was known of it and of later ones.
            rates = (*progress.rates[: event.cycle], held_out.win_rate)
            return replace(progress, rates=rates, latest=f"{percent(held_out)} of {held_out.episodes}")
        case RunFinished():
            return replace(progress, phase="", finished=event.summary)
    return progress


def remaining(progress: Progress) -> float | None:
    """Return the seconds that the phase still takes if it goes on as it did, or None where nobody can know."""
    if not progress.total or not progress.done:
        return None
    return (progress.now - progress.zero) * max(progress.total - progress.done, 0) / progress.done


def sparkline(rates: Sequence[float]) -> str:
    """Draw win rates between 0 and 1 as one block each."""
    return "".join(BLOCKS[min(int(rate * len(BLOCKS)), len(BLOCKS) - 1)] for rate in rates)


def traffic_words(event: TrafficCounted) -> str:
    """Say what one client sent and received on average, and how many vectors counted."""
    up, down = size(event.uplink_bytes), size(event.downlink_bytes)
    return f"{up} up, {down} down per client; {event.accepted} accepted, refused: {refused_words(event.refused)}"


def lesson_lines(lessons: Sequence[Lesson]) -> list[str]:
    """Say the strongest lessons, one a line."""
    strongest = sorted(lessons, key=lambda lesson: -abs(lesson.weight))[:SHOWN_LESSONS]
    return [f"{lesson_words(x)} ({x.weight:+.2f}, seen {x.support:.0f} times)" for x in strongest]


def decision_words(event: Decided) -> str:
    """Say what the gate decided, and why."""
    return f"{event.decision}: {event.reason} (version {event.version})"


def plain_line(event: Event) -> str | None:
    """Say an event in one line of text, or None for those that come many times."""
    match event:
        case RunStarted():
            run = f"{event.scenario}: seed {event.seed}, engine {event.engine}"
            text = f"{run}, {event.clients} clients, {event.cycles} cycles"
        case PhaseFinished():
            text = f"cycle {event.cycle}: {event.phase} took {event.seconds:.1f} s"
        case TrafficCounted():
            text = f"cycle {event.cycle}: {traffic_words(event)}"
        case LessonsLearned():
            text = f"cycle {event.cycle}: " + ("; ".join(lesson_lines(event.lessons)) or "no lessons")
        case Decided():
            text = f"cycle {event.cycle}: {decision_words(event)}"
        case CycleFinished():
            held_out = event.entry.held_out
            text = f"cycle {event.cycle}: {percent(held_out)} of {held_out.episodes} held-out games won"
        case RunFinished():
            text = f"finished: {event.summary}"
        case _:
            return None
    return f"{event.t:8.1f} s  {text}"
