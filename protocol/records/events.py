"""Events of a run: one dataclass for each kind of line in ``events.jsonl``.

No event has a field that could hold text of a game.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, ClassVar

from ..config import Scalar
from ..errors import RecordError
from .json_codec import from_json, to_json, without_schema
from .summary import CycleRecord, Lesson


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """What all events have: `KIND`, the name under which they are written, and `t`.

    `t` is in seconds since the run began, without the time between a stop and its resume; the log sets it.
    """

    KIND: ClassVar[str] = ""

    t: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class RunStarted(Event):
    """A process began or resumed the run; `config` is its flat configuration."""

    KIND: ClassVar[str] = "run_started"

    scenario: str
    seed: int
    engine: str
    clients: int
    cycles: int
    config: Mapping[str, Scalar]


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseStarted(Event):
    """A phase began; `total` is the number of its steps where that is known."""

    KIND: ClassVar[str] = "phase_started"

    cycle: int
    phase: str
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseProgress(Event):
    """So many of a phase's steps are done."""

    KIND: ClassVar[str] = "phase_progress"

    cycle: int
    phase: str
    done: int
    total: int | None


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseFinished(Event):
    """A phase ended, and took so many seconds."""

    KIND: ClassVar[str] = "phase_finished"

    cycle: int
    phase: str
    seconds: float


@dataclass(frozen=True, slots=True, kw_only=True)
class TrafficCounted(Event):
    """What the cycle's exchanges cost one client on average, and how many vectors counted or were refused."""

    KIND: ClassVar[str] = "traffic"

    cycle: int
    uplink_bytes: float
    downlink_bytes: float
    accepted: int
    refused: Mapping[str, int]


@dataclass(frozen=True, slots=True, kw_only=True)
class LessonsLearned(Event):
    """The context of a cycle in words."""

    KIND: ClassVar[str] = "lessons"

    cycle: int
    lessons: tuple[Lesson, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Event):
    """What became of a cycle's candidate, why, and which version plays from now on."""

    KIND: ClassVar[str] = "decision"

    cycle: int
    decision: str
    reason: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class CycleFinished(Event):
    """A cycle ended; `entry` is its record in the summary."""

    KIND: ClassVar[str] = "cycle_finished"

    cycle: int
    entry: CycleRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class RunFinished(Event):
    """The run ended; `summary` is the name of the summary's file."""

    KIND: ClassVar[str] = "run_finished"

    summary: str


Listener = Callable[[Event], None]
EVENTS: Mapping[str, type[Event]] = MappingProxyType(
    {
        event.KIND: event
        for event in (
            RunStarted, PhaseStarted, PhaseProgress, PhaseFinished, TrafficCounted, LessonsLearned, Decided,
            CycleFinished, RunFinished,
        )
    }
)  # fmt: skip


def event_to_json(event: Event) -> dict[str, Any]:
    """Return an event as it is written."""
    return {"event": event.KIND, **to_json(event)}


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
