"""Where a run stands, as one frozen value: events go in, a new value comes out. Nothing is drawn here."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from .summary import lesson_words, percent, refused_words, size

Event = Mapping[str, Any]
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
    """Return where the run stands after an event; an event of an unknown kind changes the time only."""
    progress = replace(progress, now=float(event["t"]))
    match event["event"]:
        case "run_started":
            names = ("scenario", "seed", "engine", "clients", "cycles")
            return replace(Progress(now=progress.now), **{name: event[name] for name in names})
        case "phase_started":
            began = {"cycle": event["cycle"], "phase": event["phase"], "total": event["total"], "zero": progress.now}
            return replace(progress, done=0, **began)
        case "phase_progress":
            return replace(progress, done=event["done"], total=event["total"])
        case "traffic":
            return replace(progress, traffic=traffic_words(event))
        case "lessons":
            return replace(progress, lessons=tuple(lesson_lines(event["lessons"])))
        case "decision":
            return replace(progress, decision=decision_words(event))
        case "cycle_finished":
            held_out = event["entry"]["held_out"]
            # A resumed run may say a cycle again: it replaces what was known of it and of later ones.
            rates = (*progress.rates[: event["cycle"]], held_out["win_rate"])
            return replace(progress, rates=rates, latest=f"{percent(held_out)} of {held_out['episodes']}")
        case "run_finished":
            return replace(progress, phase="", finished=str(event["summary"]))
    return progress


def remaining(progress: Progress) -> float | None:
    """Return the seconds that the phase still takes if it goes on as it did, or None where nobody can know."""
    if not progress.total or not progress.done:
        return None
    return (progress.now - progress.zero) * max(progress.total - progress.done, 0) / progress.done


def sparkline(rates: Sequence[float]) -> str:
    """Draw win rates between 0 and 1 as one block each."""
    return "".join(BLOCKS[min(int(rate * len(BLOCKS)), len(BLOCKS) - 1)] for rate in rates)


def traffic_words(event: Event) -> str:
    """Say what one client sent and received on average, and how many vectors counted."""
    refused = event["refused"] if isinstance(event["refused"], Mapping) else {"refused": event["refused"]}
    up, down = size(event["uplink_bytes"]), size(event["downlink_bytes"])
    return f"{up} up, {down} down per client; {event['accepted']} accepted, refused: {refused_words(refused)}"


def lesson_lines(lessons: Sequence[Mapping[str, Any]]) -> list[str]:
    """Say the strongest lessons, one a line."""
    strongest = sorted(lessons, key=lambda lesson: -abs(lesson["weight"]))[:SHOWN_LESSONS]
    return [f"{lesson_words(x)} ({x['weight']:+.2f}, seen {x['support']:.0f} times)" for x in strongest]


def decision_words(event: Event) -> str:
    """Say what the gate decided, and why."""
    return f"{event['decision']}: {event['reason']} (version {event['version']})"


def plain_line(event: Event) -> str | None:
    """Say an event in one line of text, or None for those that come many times."""
    match event["event"]:
        case "run_started":
            text = "{scenario}: seed {seed}, engine {engine}, {clients} clients, {cycles} cycles".format_map(event)
        case "phase_finished":
            text = f"cycle {event['cycle']}: {event['phase']} took {event['seconds']:.1f} s"
        case "traffic":
            text = f"cycle {event['cycle']}: {traffic_words(event)}"
        case "lessons":
            text = f"cycle {event['cycle']}: " + ("; ".join(lesson_lines(event["lessons"])) or "no lessons")
        case "decision":
            text = f"cycle {event['cycle']}: {decision_words(event)}"
        case "cycle_finished":
            held_out = event["entry"]["held_out"]
            text = f"cycle {event['cycle']}: {percent(held_out)} of {held_out['episodes']} held-out games won"
        case "run_finished":
            text = f"finished: {event['summary']}"
        case _:
            return None
    return f"{event['t']:8.1f} s  {text}"
