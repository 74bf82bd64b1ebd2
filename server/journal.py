"""The journal of a run on disk, ``journal.jsonl``: see `fedoel.protocol.records.journal`.

The process that plays a run and the commands of an operator append to the same file, one after the other, under a lock.
A live run sees what an operator has appended as soon as it looks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..protocol.config import settings_digest
from ..protocol.errors import ConfigError, FedoelError, RecordError
from ..protocol.fleet.log import JOURNAL as LOGGED
from ..protocol.fleet.membership import read_fleet_key
from ..protocol.formats import JOURNAL, KEY
from ..protocol.host.files import append_line, drop_torn_line
from ..protocol.host.lock import in_turn
from ..protocol.records.events import CycleFinished
from ..protocol.records.journal import CURRENT, DECIDED, FIRST, OPENED, TAKEN, Entry, is_signed, new_line, read_line
from .events import LOG, read_events
from .fleet import owner_key
from .log import FleetLog

NAME, CONFIG = "journal.jsonl", "config.json"
OPERATOR, CYCLE = "operator", "cycle"
TOLD = ("cycle", "decision", "version", "config")  # what an entry of the fleet's log says of a line, beside its digest


def has_begun(run: Path) -> bool:
    """Whether a run's journal has a whole line; a process may have been killed in its first."""
    path = run / NAME
    return path.is_file() and b"\n" in path.read_bytes()


class Journal:
    """The journal of the run in a folder; it may not exist yet.

    Parameters
    ----------
    run
        Folder of the run.
    keys
        Folder of the fleet's keys, whose owner signs. An operator's entry that is not signed is refused.
    """

    def __init__(self, run: Path, keys: Path) -> None:
        self.path, self._keys, self._log = run / NAME, keys, FleetLog(keys)
        self._entries: list[Entry] = []
        self._by_kind: dict[str, list[Entry]] = {}
        self._decisions: dict[int, Entry] = {}
        self._size = 0

    @property
    def entries(self) -> Sequence[Entry]:
        """All entries, with those that other processes have appended since the last look; without digests of files.

        Raises
        ------
        FedoelError
            If the file cannot be read, or a line of it is no entry or not signed.
        """
        try:
            size = self.path.stat().st_size
        except FileNotFoundError:
            size = 0
        if size != self._size:
            self._refresh()
        return self._entries

    def of_kind(self, *kinds: str) -> list[Entry]:
        """Return the entries of some kinds, oldest first."""
        _ = self.entries
        return sorted((e for kind in kinds for e in self._by_kind.get(kind, ())), key=lambda entry: entry.number)

    def last(self, *kinds: str) -> Entry | None:
        """Return the newest entry of some kinds; None if there is none."""
        _ = self.entries
        newest = [entries[-1] for kind in kinds if (entries := self._by_kind.get(kind))]
        return max(newest, key=lambda entry: entry.number, default=None)

    @property
    def finished(self) -> int:
        """The last cycle that has ended; -1 before cycle 0."""
        opened = [int(entry.values["cycle"]) for entry in self.of_kind(OPENED)]
        return max([-1, *opened, next(reversed(self._decisions), -1)])  # cycles end in their order

    @property
    def pending(self) -> list[Entry]:
        """What an operator has made current and the run has not taken yet, oldest first."""
        newest = self.last(TAKEN)
        taken, pending = int(newest.values["choice"]) if newest else 0, list[Entry]()
        for entry in reversed(self._by_kind.get(CURRENT, ())):
            if entry.number <= taken:
                break
            if entry.values["by"] == OPERATOR:
                pending.append(entry)
        return pending[::-1]

    @property
    def current(self) -> str:
        """The current version: what an operator has chosen and is not taken yet, or else what plays; empty if none."""
        if self.pending:
            return str(self.pending[-1].values["version"])
        played = self.last(OPENED, CURRENT, TAKEN)
        return str(played.values["version"]) if played else ""

    def decision(self, cycle: int) -> Entry | None:
        """Return the newest entry on a cycle's decision; None if there is none."""
        _ = self.entries
        return self._decisions.get(cycle)

    @contextmanager
    def held(self) -> Iterator[None]:
        """Keep other processes from appending, and read what they have appended."""
        with in_turn(self.path):
            drop_torn_line(self.path)  # which was never acted on
            yield

    def add(self, kind: str, **values: Any) -> Entry:
        """Append an entry and force it to the disk; it is signed with the key of the fleet's owner.

        Raises
        ------
        ConfigError
            If the owner's key is missing.
        FedoelError
            If the disk refuses it.
        """
        with self.held():
            return self.add_held(kind, **values)

    def add_held(self, kind: str, **values: Any) -> Entry:
        """Append an entry in a `held` block; as `add`."""
        entries = self.entries
        previous, key = entries[-1].digest if entries else FIRST, owner_key(self._keys)
        line = new_line(key, len(entries) + 1, previous, kind, values)
        try:
            append_line(self.path, line)
            self._size = self.path.stat().st_size
        except OSError as error:
            raise FedoelError(
                f"{self.path} cannot be written: {error.strerror}; make room and go on with --resume"
            ) from error
        entry = self._keep(read_line(line))
        if self._log.begun:
            told = {name: values[name] for name in TOLD if name in values}
            self._log.add(key, LOGGED, of=kind, **told, sha256=entry.digest)
        return entry

    def _keep(self, entry: Entry) -> Entry:
        """Keep an entry in memory, without what only `fedoel verify` reads."""
        kept = replace(entry, values={name: value for name, value in entry.values.items() if name != "files"})
        self._entries.append(kept)
        self._by_kind.setdefault(entry.kind, []).append(kept)
        if entry.kind == DECIDED:
            self._decisions[int(entry.values["cycle"])] = kept
        return entry

    def _refresh(self) -> None:
        """Read what was appended behind what is known, and check that it is signed."""
        try:
            with self.path.open("rb") as file:
                file.seek(self._size)
                new = file.read()
            public = read_fleet_key(self._keys)
        except (OSError, ValueError) as error:
            raise FedoelError(f"{self.path} cannot be read with the keys in {self._keys}: {error}") from error
        whole = new[: new.rfind(b"\n") + 1]  # a line that is being written, or was torn, is not there yet
        for line in whole.splitlines():
            number = len(self._entries) + 1
            try:
                entry = read_line(line)
            except RecordError as error:
                raise FedoelError(f"{self.path}, line {number}: {error}; put back a copy of the file") from error
            if entry.kind == OPENED:
                JOURNAL.check(entry.values.get(KEY, 1), self.path)
            if not is_signed(line, public):
                raise FedoelError(
                    f"{self.path}, line {number} is not signed by this fleet's key, or was changed: put back a copy of "
                    "the file, or start another run"
                )
            self._keep(entry)
        self._size += len(whole)


def open_journal(run: Path, keys: Path) -> Journal:
    """Return the journal of a run, and begin it if there is none: after the cycles that have ended already."""
    journal = Journal(run, keys)
    with journal.held():
        if not journal.entries:
            cycle, version = _finished(run)
            journal.add_held(OPENED, config=config_digest(run), cycle=cycle, version=version, schema=JOURNAL.current)
    return journal


def read_lines(run: Path) -> list[bytes]:
    """Return the whole lines of a run's journal, unchecked; none if there is no journal, or it has no whole line.

    Raises
    ------
    ConfigError
        If the file cannot be read.
    """
    try:
        content = (run / NAME).read_bytes()
    except FileNotFoundError:
        return []
    except OSError as error:
        raise ConfigError(f"{run / NAME} cannot be read: {error.strerror}") from error
    return content[: content.rfind(b"\n") + 1].splitlines()


def digest_of(path: Path, start: int = 0, end: int | None = None) -> str:
    """Return the SHA-256 of a part of a file, in hexadecimal; of a missing file, that of nothing."""
    digest = hashlib.sha256()
    if path.exists():
        with path.open("rb") as file:
            file.seek(start)
            left = path.stat().st_size - start if end is None else end - start
            while left > 0 and (block := file.read(min(left, 1 << 20))):
                digest.update(block)
                left -= len(block)
    return digest.hexdigest()


def config_digest(run: Path, cycles: int | None = None) -> str:
    """Return the SHA-256 of the settings that a run may not change; empty if they are not stored.

    Parameters
    ----------
    cycles
        Number of cycles in the place of the stored one.
    """
    if not (run / CONFIG).exists():
        return ""
    try:
        settings = json.loads((run / CONFIG).read_bytes())
        return settings_digest(settings if cycles is None else {**settings, "cycles": cycles})
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{run / CONFIG} is not a stored configuration ({error})") from error


def _finished(run: Path) -> tuple[int, str]:
    """Return the last cycle that a run without a journal has finished, and the version after it."""
    if not (run / LOG).exists():
        return -1, ""
    ended = [event.entry for event in read_events(run / LOG) if isinstance(event, CycleFinished)]
    last = max(ended, key=lambda record: record.cycle, default=None)
    return (last.cycle, last.version) if last else (-1, "")
