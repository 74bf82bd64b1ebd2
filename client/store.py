"""The device's log of trajectories: an SQLite file whose rows are encrypted one by one.

AES-256-GCM binds every row to its client, format and number, so that rows cannot be swapped or copied from another
device. A row that cannot be decrypted is reported as damaged; all others stay readable. Not encrypted are the time at
which a row was written, its size, and which rows went into which vector. The key is in the operating system's keyring
or in a file that only its owner may read.
"""

from __future__ import annotations

import hmac
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

from ..protocol.errors import ConfigError, StoreError
from ..protocol.formats import STORE
from ..protocol.host.files import create_secret, exposed, make_folder, make_private_file
from ..protocol.play import Trajectory
from .trajectory_bytes import trajectory_from_bytes, trajectory_to_bytes

NONCE = 12
KEY_BYTES = 32
KEPT_USES = 10_000  # records of what went into which vector
SEALED = 1  # number of the way in which rows are sealed
SERVICE = "fedoel"  # name of the keyring's entries
CHECK = b"fedoel store"  # encrypted in the table `meta`: tells whether a key is the right one
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
    """What a store holds: the rows that can be decrypted, and the numbers of those that cannot."""

    rows: tuple[Stored, ...]
    damaged: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Use:
    """A row that went into a vector; the vector is named by its digest."""

    row: int
    vector: str
    used: float


class TrajectoryStore:
    """The trajectories of one client.

    Parameters
    ----------
    path
        The SQLite file; it is made if it does not exist.
    client
        Name of the client whose trajectories these are.
    key
        Key of AES-256, 32 bytes.
    clock
        Returns the time in seconds since the epoch.

    Raises
    ------
    StoreError
        If the file is damaged or not a store, of a format that is not read, or belongs to another key or client.
    """

    def __init__(self, path: Path, client: str, key: bytes, clock: Callable[[], float] = time.time) -> None:
        self.path, self._client, self._clock = path, client, clock
        self._cipher, self._mac_key = _cipher(key), _mac_key(key)
        try:
            make_folder(path.parent, private=True)
            make_private_file(path)
            _restore_length(path)
        except OSError as error:
            raise StoreError(f"the store {path} cannot be written: {error.strerror}; make room") from error
        with self._transaction() as database:
            self._check_format(database)
            database.executescript(TABLES)
            self._check_key(database)

    def add(self, trajectories: Sequence[Trajectory]) -> list[int]:
        """Encrypt and insert trajectories, all or none of them, and return the numbers of their rows."""
        numbers: list[int] = []
        with self._transaction() as database:
            for trajectory in trajectories:
                cursor = database.execute("INSERT INTO rows (written, sealed) VALUES (?, ?)", (self._clock(), b""))
                number = int(cursor.lastrowid or 0)
                sealed = self._seal(self._cipher, number, trajectory_to_bytes(trajectory))
                database.execute("UPDATE rows SET sealed = ? WHERE id = ?", (sealed, number))
                numbers.append(number)
        return numbers

    def read(self) -> Contents:
        """Decrypt every row that can be decrypted, oldest first."""
        rows, damaged = [], []
        with self._transaction() as database:
            last = database.execute("SELECT seq FROM sqlite_sequence WHERE name = 'rows'").fetchone()
            for number in range(1, last[0] + 1 if last else 1):
                try:
                    row = database.execute("SELECT written, sealed FROM rows WHERE id = ?", (number,)).fetchone()
                    if row is not None:
                        rows.append(Stored(number, row[0], trajectory_from_bytes(self._unseal(number, row[1]))))
                except (StoreError, sqlite3.DatabaseError):
                    damaged.append(number)
        return Contents(tuple(rows), tuple(damaged))

    def note_use(self, rows: Sequence[int], vector: bytes) -> None:
        """Record that rows went into a vector.

        The vector itself is not kept, and nobody without the store's key can tell whether it was a vector that he
        guesses: what is kept is an HMAC (RFC 2104).
        """
        digest = self._named(vector)
        with self._transaction() as database:
            uses = [(row, digest, self._clock()) for row in rows]
            database.executemany("INSERT INTO uses (row, vector, used) VALUES (?, ?, ?)", uses)

    def uses(self) -> tuple[Use, ...]:
        """Return which rows went into which vector, oldest first; the newest of these records outlive the rows."""
        with self._transaction() as database:
            return tuple(Use(*entry) for entry in database.execute("SELECT row, vector, used FROM uses ORDER BY used"))

    @property
    def format(self) -> int:
        """The number of the file's format."""
        with self._transaction() as database:
            return _number(database)

    def migrate(self) -> None:
        """Bring the file to today's format, in one transaction.

        In format 1, vectors could be named by plain digests, with which somebody who guesses a vector could compare it.
        Their names become HMACs of these.
        """
        with self._transaction() as database:
            database.execute("BEGIN IMMEDIATE")
            if _number(database) == STORE.current:
                return
            names = database.execute("SELECT DISTINCT vector FROM uses").fetchall()
            renamed = [(self._named(name.encode()), name) for (name,) in names]
            database.executemany("UPDATE uses SET vector = ? WHERE vector = ?", renamed)
            database.execute(f"PRAGMA user_version = {STORE.current}")

    def prune(self, max_age: float | None = None, max_bytes: int | None = None) -> int:
        """Delete rows that are too old, and the oldest rows until the rest is small enough.

        All but the newest `KEPT_USES` records of what went into which vector are deleted, too.

        Parameters
        ----------
        max_age
            Age in seconds above which a row is deleted; None for no limit.
        max_bytes
            Size of all encrypted rows together up to which the newest are kept; None for no limit.

        Returns
        -------
        int
            How many rows were deleted.
        """
        with self._transaction() as database:
            newest_first = database.execute("SELECT id, written, length(sealed) FROM rows ORDER BY id DESC").fetchall()
            total_bytes, deleted = 0, []
            for number, written, size in newest_first:
                total_bytes += size
                too_old = max_age is not None and written < self._clock() - max_age
                if too_old or (max_bytes is not None and total_bytes > max_bytes):
                    deleted.append((number,))
            database.executemany("DELETE FROM rows WHERE id = ?", deleted)
            database.execute("DELETE FROM uses WHERE rowid <= (SELECT max(rowid) FROM uses) - ?", (KEPT_USES,))
        return len(deleted)

    def rotate(self, key: bytes) -> None:
        """Encrypt all rows with another key, or none; rows that cannot be decrypted are left as they are."""
        cipher = _cipher(key)
        with self._transaction() as database:
            for number, sealed in database.execute("SELECT id, sealed FROM rows").fetchall():
                try:
                    data = self._unseal(number, sealed)
                except StoreError:
                    continue
                resealed = self._seal(cipher, number, data)
                database.execute("UPDATE rows SET sealed = ? WHERE id = ?", (resealed, number))
            database.execute("UPDATE meta SET value = ? WHERE name = 'check'", (self._seal(cipher, 0, CHECK),))
        self._cipher, self._mac_key = cipher, _mac_key(key)

    def wipe(self) -> None:
        """Delete the file. What the disk still holds of it cannot be read without the key."""
        try:
            for path in (self.path, *(self.path.with_name(self.path.name + end) for end in ("-journal", "-wal"))):
                path.unlink(missing_ok=True)
        except OSError as error:
            raise StoreError(f"the store {self.path} cannot be deleted: {error.strerror}") from error

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Open the database for one transaction, which is committed unless the block raises."""
        try:
            database = sqlite3.connect(self.path)
            try:
                database.execute("PRAGMA secure_delete = ON")
                with database:
                    yield database
            finally:
                database.close()
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise StoreError(f"another process writes to the store {self.path}: try again") from error
            raise StoreError(
                f"the store {self.path} cannot be used ({error}): make room if the disk is full; if the file is "
                "damaged, move it away and start a new one"
            ) from error

    def _check_format(self, database: sqlite3.Connection) -> None:
        """Refuse a file of a format that is not read, and number a new one."""
        try:
            STORE.check(_number(database), f"the store {self.path}")
        except ConfigError as error:
            raise StoreError(str(error)) from error
        if not database.execute("SELECT 1 FROM sqlite_master").fetchone():
            database.execute(f"PRAGMA user_version = {STORE.current}")

    def _check_key(self, database: sqlite3.Connection) -> None:
        """Refuse another key before anything is encrypted with it."""
        check = database.execute("SELECT value FROM meta WHERE name = 'check'").fetchone()
        if check is None:
            database.execute("INSERT INTO meta VALUES ('check', ?)", (self._seal(self._cipher, 0, CHECK),))
            return
        try:
            self._unseal(0, check[0])
        except StoreError as error:
            raise StoreError(f"the store {self.path} belongs to another key or another client") from error

    def _named(self, vector: bytes) -> str:
        """Return the name of a vector, which nobody can compare with a guess who lacks the store's key."""
        return hmac.digest(self._mac_key, vector, "sha256").hex()[:16]

    def _seal(self, cipher: AESGCM, number: int, data: bytes) -> bytes:
        nonce = os.urandom(NONCE)
        return nonce + cipher.encrypt(nonce, data, self._associated(number))

    def _unseal(self, number: int, sealed: bytes) -> bytes:
        try:
            return self._cipher.decrypt(sealed[:NONCE], sealed[NONCE:], self._associated(number))
        except (InvalidTag, ValueError, TypeError) as error:
            raise StoreError(f"row {number} cannot be opened") from error

    def _associated(self, number: int) -> bytes:
        """Return the associated data of a row: what AES-GCM authenticates without encrypting it."""
        return json.dumps([self._client, SEALED, number]).encode()


def _number(database: sqlite3.Connection) -> int:
    """Return the number of a store's format; a file without one is of the first."""
    return int(database.execute("PRAGMA user_version").fetchone()[0]) or 1


def _restore_length(path: Path) -> None:
    """Extend a truncated file to its length before, because SQLite reads nothing of a file that is too short.

    The rows that were lost are then read as damaged. The header gives the size and the number of pages
    (https://www.sqlite.org/fileformat.html, section 1.3).
    """
    with path.open("r+b") as file:
        header = file.read(100)
        if not header.startswith(b"SQLite format 3\0") or len(header) < 100:
            return
        page_size, pages = int.from_bytes(header[16:18], "big"), int.from_bytes(header[28:32], "big")
        length = (65_536 if page_size == 1 else page_size) * pages
        if file.seek(0, os.SEEK_END) < length:
            file.truncate(length)


def _mac_key(key: bytes) -> bytes:
    """Return the key of the HMACs of vectors, which follows from the store's."""
    return hmac.digest(key, b"fedoel uses 1", "sha256")


def _cipher(key: bytes) -> AESGCM:
    if len(key) != KEY_BYTES:
        raise StoreError(f"a store's key has {KEY_BYTES} bytes, not {len(key)}")
    return AESGCM(key)


def key_from_file(path: Path) -> bytes:
    """Read a key from a file; if there is no file, draw a key and write it there.

    Raises
    ------
    StoreError
        If others may read the file, it does not hold a key, or it cannot be written.
    """
    try:
        if not path.exists():
            create_secret(path, os.urandom(KEY_BYTES).hex())
        if exposed(path):
            raise StoreError(f"others may read {path}: chmod 600 it, and rotate the key if they did")
        return _key_from_hex(path.read_text(encoding="ascii"), str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(f"the key {path} cannot be used ({error})") from error


def key_from_keyring(client: str) -> bytes:
    """Read a client's key from the keyring; if it has none, draw a key and store it there.

    Raises
    ------
    StoreError
        If there is no keyring, or it cannot be used.
    """
    try:
        import keyring
        from keyring.errors import KeyringError
    except ImportError as error:
        raise StoreError("the package keyring is not installed: install it, or keep the key in a file") from error
    try:
        text = keyring.get_password(SERVICE, client)
        if text is None:
            text = os.urandom(KEY_BYTES).hex()
            keyring.set_password(SERVICE, client, text)
    except KeyringError as error:
        raise StoreError(f"the keyring cannot be used ({error}): keep the key in a file") from error
    return _key_from_hex(text, "the keyring")


def _key_from_hex(text: str, where: str) -> bytes:
    try:
        key = bytes.fromhex(text)
    except ValueError:
        key = b""
    if len(key) != KEY_BYTES:
        raise StoreError(f"{where} holds no key of {KEY_BYTES} bytes in hexadecimal: put it back, or wipe the store")
    return key
