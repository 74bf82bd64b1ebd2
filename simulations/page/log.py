"""Where a run stands, from its log, which is read on from where the last look ended."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from ...protocol.errors import FedoelError
from ...protocol.records.events import CycleFinished, Event, PhaseFinished, event_from_json
from ..live import Progress, after


@dataclass
class RunLog:
    """What events have told so far.

    `progress` is where the run stands, `ended` how often a cycle has ended, and `seconds` the duration of each finished
    phase by cycle; of a phase that was repeated, the last one counts.
    """

    progress: Progress = field(default_factory=Progress)
    seconds: dict[int, dict[str, float]] = field(default_factory=dict)
    ended: int = 0
    problem: str = ""
    _read: int = 0
    _lines: int = 0

    def add(self, events: Iterable[Event]) -> RunLog:
        """Take note of events, and return this log."""
        for event in events:
            self.progress = after(self.progress, event)
            self.ended += isinstance(event, CycleFinished)
            if isinstance(event, PhaseFinished):
                self.seconds.setdefault(event.cycle, {})[event.phase] = event.seconds
        return self

    def read(self, path: Path) -> RunLog:
        """Return this log with what was appended to a file since the last look, or a new one if the file is another.

        A last line that is still being written is left for the next look; a line that is no event is a `problem`.
        """
        size = path.stat().st_size if path.exists() else 0
        if size < self._read:
            return RunLog().read(path)
        if size > self._read:
            with path.open("rb") as file:
                file.seek(self._read)
                for line in file:
                    if not line.endswith(b"\n"):
                        break
                    self._read += len(line)
                    self._lines += 1
                    if line != b"\n":
                        self._add_line(line, path)
        return self

    def _add_line(self, line: bytes, path: Path) -> None:
        try:
            self.add([event_from_json(json.loads(line), path)])
        except (FedoelError, ValueError, TypeError, AttributeError):
            self.problem = f"{path.name}, line {self._lines} is not an event and was left out"
