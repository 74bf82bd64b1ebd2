"""The log of a run: one event a line in ``events.jsonl``, and a listener that is given the same events.

Only the events of `fedoel.protocol.records.events` can be written, so that no text of any game finds its way into a
log. Imports the standard library only: views and reports read logs without loading a model.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Self

from ..protocol.errors import ConfigError, FedoelError, RecordError
from ..protocol.formats import KEY, RECORDS
from ..protocol.host.files import cut_torn_line, torn_line
from ..protocol.records.events import (
    CycleFinished,
    Event,
    Listener,
    PhaseFinished,
    PhaseProgress,
    PhaseStarted,
    event_from_json,
    event_to_json,
)

Advance = Callable[..., None]

LOG = "events.jsonl"  # in the folder of a run
PROGRESS_EVERY = 0.3  # seconds
FIRST_PHASES = ("model", "games", "codec", "warm-start", "floors", "evaluate", "behaviour")
CYCLE_PHASES = (
    "rehearsal", "collect", "context", "teacher", "lessons", "distil", "gate", "behaviour", "evaluate", "replay",
)  # fmt: skip


class EventLog:
    """Appends events to a file and tells a listener, inside a ``with`` block; an older log is continued.

    The process that plays a run writes its log from beginning to end, so that the lock on it is the run's own: a server
    that outlives the command that has started it is found by it.

    Parameters
    ----------
    path
        The file to append to; its folder is made.
    listener
        Called with every event, after it was written.
    clock
        Seconds that never go backwards.

    `known_cycle` is the last cycle whose end an earlier process has logged, -1 if there is none. `hold` is called
    before every phase and with its progress, and returns when the run may go on.
    """

    def __init__(
        self, path: Path, listener: Listener | None = None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.path, self._listener, self._clock = path, listener, clock
        self._seconds: dict[int, dict[str, float]] = {}  # by cycle and phase, of cycles whose end was not logged yet
        self.known_cycle = -1
        self.hold: Callable[[], None] = lambda: None

    def __enter__(self) -> Self:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # One unbuffered write a line: a killed process loses at most the line that it was writing.
            self._file = self.path.open("ab", buffering=0)
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until the file is closed or the process ends
                _mend(self.path)
                began = self._continued()
            except BaseException:
                self._file.close()
                raise
        except BlockingIOError as error:
            raise ConfigError(f"another process writes {self.path}: wait until it ends, or stop it") from error
        except OSError as error:
            raise FedoelError(f"cannot write to {self.path}: {error.strerror}; choose another folder") from error
        self._zero = self._clock() - (began or 0.0)
        self._schema = {KEY: RECORDS.current} if began is None else {}  # stands in the first line of a log
        return self

    def _continued(self) -> float | None:
        """Read what earlier processes have logged; return the seconds that the run has taken, None if it is new."""
        began = None
        for event in events_of(self.path):
            began = event.t
            if isinstance(event, PhaseFinished):
                self._seconds.setdefault(event.cycle, {})[event.phase] = event.seconds
            elif isinstance(event, CycleFinished):
                self.known_cycle = max(self.known_cycle, event.cycle)
        return began

    def seconds(self, cycle: int) -> dict[str, float]:
        """Return how long each phase of a cycle took, as `seconds_by_phase` does, and forget it: a cycle ends once."""
        return self._seconds.pop(cycle, {})

    def __exit__(self, *exception: object) -> None:
        self._file.close()

    def emit(self, event: Event) -> None:
        """Write one event, with the seconds `t` that the run has taken so far.

        Raises
        ------
        ValueError
            If a field is of another type than its event says, or a number is not finite.
        FedoelError
            If the disk refuses it. A line that is there in part is cut off when the log is opened again.
        """
        stamped = replace(event, t=round(self._clock() - self._zero, 3))
        line = json.dumps({**event_to_json(stamped), **self._schema}, allow_nan=False)
        written = event_from_json(json.loads(line), "this event")
        self._write(line.encode() + b"\n")
        self._schema = {}
        if self._listener is not None:
            self._listener(written)

    def _write(self, line: bytes) -> None:
        try:
            if self._file.write(line) == len(line):
                return
            problem = os.strerror(errno.ENOSPC)  # what a disk that fills up within a line does not say
        except OSError as error:
            problem = str(error.strerror)
        raise FedoelError(f"cannot write to {self._file.name}: {problem}; make room and go on with --resume")

    @contextmanager
    def phase(self, cycle: int, name: str, total: int | None = None) -> Iterator[Advance]:
        """Log one phase around a ``with`` block; a block that raises leaves the phase unfinished.

        Yields
        ------
        callable
            ``advance(n=1)``, to be called when `n` more of `total` are done; it logs a few times a second.
        """
        self.hold()
        self.emit(PhaseStarted(cycle=cycle, phase=name, total=total))
        began = last_progress_at = self._clock()
        done = 0

        def advance(n: int = 1) -> None:
            nonlocal done, last_progress_at
            done += n
            if (now := self._clock()) - last_progress_at >= PROGRESS_EVERY:
                last_progress_at = now
                self.hold()
                self.emit(PhaseProgress(cycle=cycle, phase=name, done=done, total=total))

        yield advance
        seconds = round(self._clock() - began, 3)
        self._seconds.setdefault(cycle, {})[name] = seconds
        self.emit(PhaseFinished(cycle=cycle, phase=name, seconds=seconds))


def follow(file: Path) -> Iterator[Event | None]:
    """Yield the events that are appended to a file from now on, and None whenever there are no more yet."""
    position, rest = file.stat().st_size if file.exists() else 0, b""
    while True:
        if file.exists():
            with file.open("rb") as stream:
                stream.seek(position)
                *lines, rest = (rest + stream.read()).split(b"\n")
                position = stream.tell()
            for line in lines:
                yield _parse(line, file)
        yield None


def read_events(path: Path) -> list[Event]:
    """Read a log; a last line that was torn by the end of the process is left out.

    Raises
    ------
    ConfigError
        If there is no such file, it is of a newer schema, or a line other than the last is not an event.
    """
    return list(events_of(path))


def events_of(path: Path) -> Iterator[Event]:
    """Read a log event by event, so that the memory that it takes does not grow with the log; see `read_events`."""
    try:
        with path.open("rb") as file:
            for number, line in enumerate(file, 1):
                event = _parse(line, f"{path}, line {number}")
                if event is not None:
                    yield event
                elif line != b"\n" and line.endswith(b"\n"):
                    raise ConfigError(
                        f"{path}, line {number} is not an event; restore the file or run the scenario again"
                    )
    except OSError as error:
        raise ConfigError(f"cannot read the event log {path}: {error.strerror}; give the folder of a run") from error


def seconds_by_phase(events: Iterable[Event], cycle: int) -> dict[str, float]:
    """Return how long each finished phase of a cycle took; of a phase that was repeated, the last time counts."""
    return {e.phase: e.seconds for e in events if isinstance(e, PhaseFinished) and e.cycle == cycle}


def _parse(line: bytes, source: object) -> Event | None:
    """Read a line; None if it is not the whole of an event."""
    try:
        table = json.loads(line)
    except ValueError:
        return None
    if not isinstance(table, dict) or not {"event", "t"} <= table.keys():
        return None
    try:
        return event_from_json(table, source)
    except RecordError as error:
        raise ConfigError(f"{source}: {error}; restore the file or run the scenario again") from error


def _mend(path: Path) -> None:
    """Cut a torn last line off, so that the next event starts a line of its own."""
    tail = torn_line(path)
    if not tail:
        return
    if _parse(tail, path):
        with path.open("ab") as file:
            file.write(b"\n")
    else:
        cut_torn_line(path, tail)
