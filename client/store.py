"""The device's log of trajectories: an SQLite file whose rows are sealed one by one.

AES-256-GCM binds every row to its client, format and number, so that rows cannot be swapped or taken over from another
device. A row that cannot be opened is left out and counted; all others stay readable. What stands in the clear is when
a row was written, how large it is, and which rows went into which vector.
"""

from __future__ import annotations

import json
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..protocol.errors import StoreError
from ..protocol.play import Trajectory
from .trajectory_bytes import FORMAT, trajectory_from_bytes, trajectory_to_bytes

NONCE = 12
CHECK = b"fedoel store"
TABLES = """
CREATE TABLE IF NOT EXISTS meta (name TEXT PRIMARY KEY, value BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS rows (id INTEGER PRIMARY KEY AUTOINCREMENT, written REAL NOT NULL, sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS uses (row INTEGER NOT NULL, vector TEXT NOT NULL, used REAL NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class Stored:
    """One trajectory in the store."""

    id: int
    written: float
    trajectory: Trajectory


@dataclass(frozen=True, slots=True)
class Contents:
    """What a store holds: what can be read, and the numbers of rows that cannot."""

    rows: tuple[Stored, ...]
    damaged: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """A row that went into a vector, named by its digest."""

    row: int
    vector: str
    used: float


class TrajectoryStore:
    """The trajectories of one client.

    Parameters
    ----------
    path
        The file; it is made if it is not there.
    client
        Whose trajectories these are.
    key
        32 bytes.
    clock
        Seconds since the epoch.

    Raises
    ------
    StoreError
        If the file is damaged or no store, or the key is another one.
    """

    def __init__(self, path: Path, client: str, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self.path, self._client, self._clock = path, client, clock
        self._cipher = _cipher(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            if not path.exists():
                os.close(os.open(path, os.O_CREAT | os.O_WRONLY, 0o600))
        except OSError as error:
            raise StoreError(f"the store {path} cannot be made: {error.strerror}") from error
        _mend(path)
        with self._open() as base:
            base.executescript(TABLES)
            self._check_key(base)

    def add(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """Seal trajectories, all of them or none, and return the numbers of their rows."""
        numbers: list[int] = []
        with self._open() as base:
            for trajectory in trajectories:
                cursor = base.execute("INSERT INTO rows (written, sealed) VALUES (?, ?)", (self._clock(), b""))
                number = int(cursor.lastrowid or 0)
                sealed = self._seal(self._cipher, number, trajectory_to_bytes(trajectory))
                base.execute("UPDATE rows SET sealed = ? WHERE id = ?", (sealed, number))
                numbers.append(number)
        return numbers

    def read(self) -> Contents:
        """Open every row that can be opened, oldest first."""
        rows, damaged = [], []
        with self._open() as base:
            last = base.execute("SELECT seq FROM sqlite_sequence WHERE name = 'rows'").fetchone()
            for number in range(1, last[0] + 1 if last else 1):
                try:
                    found = base.execute("SELECT written, sealed FROM rows WHERE id = ?", (number,)).fetchone()
                    if found is not None:
                        opened = trajectory_from_bytes(self._unseal(number, found[1]))
                        rows.append(Stored(number, found[0], opened))
                except (StoreError, sqlite3.DatabaseError):
                    damaged.append(number)
        return Contents(tuple(rows), tuple(damaged))

    def note_use(self, rows: Sequence[int], vector: str) -> None:
        """Write down that rows went into a vector."""
        with self._open() as base:
            used = [(row, vector, self._clock()) for row in rows]
            base.executemany("INSERT INTO uses (row, vector, used) VALUES (?, ?, ?)", used)

    def uses(self) -> tuple[Use, ...]:
        """What was used for which vector, oldest first; it outlives the rows."""
        with self._open() as base:
            return tuple(Use(*entry) for entry in base.execute("SELECT row, vector, used FROM uses ORDER BY used"))

    def prune(self, max_age: float | None = None, max_bytes: int | None = None) -> int:
        """Delete rows that are too old, then the oldest until the rest is small enough; return how many."""
        with self._open() as base:
            sizes = base.execute("SELECT id, written, length(sealed) FROM rows ORDER BY id DESC").fetchall()
            kept, gone = 0, []
            for number, written, size in sizes:
                kept += size
                old = max_age is not None and written < self._clock() - max_age
                if old or (max_bytes is not None and kept > max_bytes):
                    gone.append((number,))
            base.executemany("DELETE FROM rows WHERE id = ?", gone)
        return len(gone)

    def rotate(self, key: bytes) -> None:
        """Seal everything again with another key, all of it or nothing; rows that cannot be opened stay as they are."""
        cipher = _cipher(key)
        with self._open() as base:
            for number, sealed in base.execute("SELECT id, sealed FROM rows").fetchall():
                try:
                    opened = self._unseal(number, sealed)
                except StoreError:
                    continue
                again = self._seal(cipher, number, opened)
                base.execute("UPDATE rows SET sealed = ? WHERE id = ?", (again, number))
            base.execute("UPDATE meta SET value = ? WHERE name = 'check'", (self._seal(cipher, 0, CHECK),))
        self._cipher = cipher

    def wipe(self) -> None:
        """Delete everything, and the file; without its key, what a disk still holds of it cannot be read."""
        try:
            for path in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-journal", "-wal"))):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"the store {self.path} cannot be deleted: {error.strerror}") from error

    @contextmanager
    def _open(self) -> Iterator[sqlite3.Connection]:
        """One transaction: committed whole, or not at all."""
        try:
            base = sqlite3.connect(self.path)
            try:
                base.execute("PRAGMA secure_delete = ON")
                with base:
                    yield base
            finally:
                base.close()
        except sqlite3.Error as error:
            raise StoreError(
                f"the store {self.path} cannot be used ({error}): make room if the disk is full; if the file is "
                "damaged, move it away and start a new one"
            ) from error

    def _check_key(self, base: sqlite3.Connection) -> None:
        """Refuse another key, before anything is written with it."""
        found = base.execute("SELECT value FROM meta WHERE name = 'check'").fetchone()
        if found is None:
            base.execute("INSERT INTO meta VALUES ('check', ?)", (self._seal(self._cipher, 0, CHECK),))
            return
        try:
            self._unseal(0, found[0])
        except StoreError as error:
            raise StoreError(f"the store {self.path} belongs to another key or another client") from error

    def _seal(self, cipher: AESGCM, number: int, data: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + cipher.encrypt(nonce, data, self._label(number))

    def _unseal(self, number: int, sealed: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], self._label(number))
        except (InvalidTag, ValueError, TypeError) as error:
            raise StoreError(f"row {number} cannot be opened") from error

    def _label(self, number: int) -> bytes:
        return json.dumps([self._client, FORMAT, number]).encode()


def _mend(path: Path) -> None:
    """Give a file that was cut off its length again: SQLite would read nothing of it. What was lost reads as damaged.

    Size and number of pages stand in the header (https://www.sqlite.org/fileformat.html, 1.3).
    """
    with path.open("r+b") as file:
        header = file.read(100)
        if not header.startswith(b"SQLite format 3\0") or len(header) < 100:
            return
        size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        whole = (65_536 if size == 1 else size) * pages
        if file.seek(0, os.SEEK_END) < whole:
            file.truncate(whole)


def _cipher(key: bytes) -> AESGCM:
    if len(key) != 32:
        raise StoreError(f"a store's key has 32 bytes, not {len(key)}")
    return AESGCM(key)
