"""Events of a run: one dataclass for each kind of line in ``events.jsonl``.

No event has a field that could hold text of a game.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

from ..config import Scalar
from ..errors import RecordError
from .json_codec import from_json, to_json, without_schema
from .summary import CycleRecord, Lesson


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have: `t`, the seconds since the run began, without the time between a stop and its resume.

    The log sets it.
    """

    t: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A process began or resumed the run; `config` is its flat configuration."""

    scenario: str
    seed: int
    engine: str
    clients: int
    cycles: int
    config: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted(Event):
    """A phase began; `total` is the number of its steps where that is known."""

    cycle: int
    phase: str
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseProgress(Event):
    """So many of a phase's steps are done."""

    cycle: int
    phase: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished(Event):
    """A phase ended, and took so many seconds."""

    cycle: int
    phase: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficCounted(Event):
    """What the cycle's exchanges cost one client on average, and how many vectors counted or were refused."""

    cycle: int
    uplink_bytes: float
    downlink_bytes: float
    accepted: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonsLearned(Event):
    """The context of a cycle in words."""

    cycle: int
    lessons: tuple[Lesson, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Event):
    """What became of a cycle's candidate, why, and which version plays from now on."""

    cycle: int
    decision: str
    reason: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleFinished(Event):
    """A cycle ended; `entry` is its record in the summary."""

    cycle: int
    entry: CycleRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run ended; `summary` is the name of the summary's file."""

    summary: str


Listener = Callable[[Event], None]
EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {
        "run_started": RunStarted, "phase_started": PhaseStarted, "phase_progress": PhaseProgress,
        "phase_finished": PhaseFinished, "traffic": TrafficCounted, "lessons": LessonsLearned, "decision": Decided,
        "cycle_finished": CycleFinished, "run_finished": RunFinished,
    }
)  # fmt: skip
"""The events by the names under which they are written."""


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as it is written."""
    name = next((name for name, event_type in EVENTS.items() if type(event) is event_type), "")
    return {"event": name, **to_json(event)}


def event_from_json(table: dict[str, Any], source: object) -> Event:
    """Read what `event_to_json` returned, with or without a schema.

    Raises
    ------
    ConfigError
        If its schema is newer than this one.
    RecordError
        If the event is of an unknown kind, or a field is missing, unknown or of another type.
    """
    known = dict(without_schema(table, source))
    kind = known.pop("event", None)
    if not isinstance(kind, str) or kind not in EVENTS:
        raise RecordError(f"event {kind!r} is none of {', '.join(EVENTS)}")
    return from_json(EVENTS[kind], known)
