"""The transparency log of a fleet on disk, ``log.jsonl`` beside the owner's key: see `fedoel.protocol.fleet.log`.

One signed line an entry, as in a run's journal, with the digest of the log's head before it. An entry is forced to the
disk before what it is about is sent. A line that a crash has torn was never sent, and is cut off. All runs of a fleet
have one log. Simulations have none.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..protocol.errors import FedoelError, RecordError
from ..protocol.fleet.log import EMPTY, KEY, WINDOW, Head, LogExtract, leaf_of
from ..protocol.fleet.succession import Succession
from ..protocol.formats import LOG
from ..protocol.host.files import append_line, drop_torn_line
from ..protocol.host.lock import in_turn
from ..protocol.records.journal import Entry, is_signed, new_line, read_line
from ..protocol.signing import sign_head

NAME = "log.jsonl"
PURPOSE = LOG.purpose


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry, its leaf, and the log's head after it."""

    entry: Entry
    leaf: bytes
    head: Head


class FleetLog:
    """The log of the fleet whose keys are in a folder; it may not exist yet.

    It is kept for as long as a run goes on: it reads what was appended since its last look, and holds the newest leaves
    only, so that neither time nor memory grow with the log.
    """

    def __init__(self, keys: Path) -> None:
        self.path = keys / NAME
        self._forget()

    @property
    def begun(self) -> bool:
        """Whether there is a log: there is none in a simulation."""
        return self.path.exists()

    def add(self, key: Ed25519PrivateKey, kind: str, *, once: bool = False, **values: Any) -> None:
        """Append an entry, and force it to the disk.

        Parameters
        ----------
        key
            Private key of the fleet's owner, who signs it.
        once
            Whether nothing is appended if the newest entries have it already.

        Raises
        ------
        FedoelError
            If the log is damaged, or the disk refuses it.
        """
        with in_turn(self.path):
            drop_torn_line(self.path)
            self._refresh()
            leaf = leaf_of(kind, values)
            if once and leaf in self._leaves:
                return
            line = new_line(key, self._head.size + 1, self._head.digest.hex(), kind, values, PURPOSE)
            try:
                append_line(self.path, line)
            except OSError as error:
                raise FedoelError(f"{self.path} cannot be written: {error.strerror}; make room and go on") from error
            self._refresh()

    def extract(self, key: Ed25519PrivateKey) -> LogExtract:
        """Return the newest part of the log, with the owner's signature of its head; raises as `add` does."""
        self._refresh()
        return LogExtract(self._start, b"".join(self._leaves), sign_head(key, self._head))

    def of_kind(self, kind: str) -> list[Entry]:
        """Return the entries of a kind, oldest first; raises as `add` does."""
        lines, _ = read_lines(self.path)
        return [logged.entry for logged in self._checked(lines, EMPTY) if logged.entry.kind == kind]

    def newest(self, kind: str) -> Mapping[str, Any] | None:
        """Return the newest entry of a kind, or None if there is none; raises as `add` does."""
        self._refresh()
        return self._newest.get(kind)

    def _forget(self) -> None:
        self._file, self._written, self._size = 0, 0, 0  # the file's number and time, and how much of it was read
        self._head, self._start = EMPTY, EMPTY  # after the last leaf, and before the first one
        self._leaves: deque[bytes] = deque()
        self._newest: dict[str, Mapping[str, Any]] = {}

    def _refresh(self) -> None:
        """Read what was appended since the last look; all of it, if the file is another one or was changed."""
        try:
            state = self.path.stat()
            if (state.st_ino, state.st_size, state.st_mtime_ns) == (self._file, self._size, self._written):
                return
            if state.st_ino != self._file or state.st_size <= self._size:
                self._forget()
            self._file, self._written = state.st_ino, state.st_mtime_ns
            with self.path.open("rb") as file:
                file.seek(self._size)
                self._take(line for line in file if line.endswith(b"\n"))  # the last one may be torn
        except FileNotFoundError:
            self._forget()
        except OSError as error:
            raise FedoelError(f"{self.path} cannot be read: {error.strerror}") from error

    def _take(self, lines: Iterable[bytes]) -> None:
        for line in lines:
            (logged,) = self._checked([line.rstrip(b"\n")], self._head)
            self._size, self._head = self._size + len(line), logged.head
            self._leaves.append(logged.leaf)
            self._newest[logged.entry.kind] = logged.entry.values
            if len(self._leaves) > WINDOW:
                self._start = self._start.after(self._leaves.popleft())

    def _checked(self, lines: Sequence[bytes], head: Head) -> Iterator[Logged]:
        """Yield the entries in lines behind a head, which have to follow each other; their signatures are unchecked."""
        for number, (logged, problem) in enumerate(chained(lines, head), head.size + 1):
            if problem or logged is None:
                raise FedoelError(
                    f"{self.path}, line {number}: {problem}; put back a copy of the file: devices refuse another log"
                )
            yield logged


def chained(lines: Sequence[bytes], head: Head | None = EMPTY) -> Iterator[tuple[Logged | None, str]]:
    """Read lines behind a head; yield each entry with its own head, and what is wrong with its place in the chain.

    After a line that is no entry, there are no heads: None is yielded for it and all that follow.
    """
    for line in lines:
        try:
            entry = read_line(line)
            leaf = leaf_of(entry.kind, entry.values)
        except (RecordError, ValueError) as error:
            head, problem = None, f"it is no entry ({error})"
        else:
            if head is None:
                problem = "its place cannot be checked behind a damaged line"
            else:
                follows = (entry.number, entry.previous) == (head.size + 1, head.digest.hex())
                head, problem = head.after(leaf), "" if follows else "it does not follow the line before"
        yield (None if head is None else Logged(entry, leaf, head)), problem


def read_lines(path: Path) -> tuple[list[bytes], bytes]:
    """Return the whole lines of a log, and what is behind the last line's end; none if there is no file."""
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        return [], b""
    except OSError as error:
        raise FedoelError(f"{path} cannot be read: {error.strerror}") from error
    *lines, tail = content.split(b"\n")
    return lines, tail


@dataclass
class LogCheck:
    """What was found in a log: its entries as far as they can be read, and a sentence for whatever is wrong."""

    entries: list[Logged] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    torn: int = 0

    @property
    def head(self) -> Head:
        """The head that follows from the lines, right or wrong."""
        return self.entries[-1].head if self.entries else EMPTY


def check_log(path: Path, public: bytes, known: Head | None = None) -> LogCheck:
    """Check a log's chain and signatures.

    Parameters
    ----------
    public
        Public key of the fleet's owner. Lines before one that names it are signed by the key before.
    known
        A head that the log must have, as a device or an earlier check has shown it.
    """
    lines, tail = read_lines(path)
    check, read = LogCheck(torn=len(tail)), list(chained(lines))
    signers = _signers([logged for logged, _ in read], public)
    for number, (line, signer, (logged, problem)) in enumerate(zip(lines, signers, read, strict=True), 1):
        if logged:
            check.entries.append(logged)
        if not is_signed(line, signer, PURPOSE):
            check.problems.append(f"line {number}: it is not signed by this fleet's key, or was changed")
        if problem:
            check.problems.append(f"line {number}: {problem}")
    if known and known not in {EMPTY, *(logged.head for logged in check.entries)}:
        check.problems.append(f"the head {known} is not in this log")
    return check


def _signers(entries: Sequence[Logged | None], public: bytes) -> list[bytes]:
    """Return the public key that has to have signed each line: the last one's is known, and a new key names the old."""
    signers = list[bytes]()
    for logged in reversed(entries):
        if logged and logged.entry.kind == KEY:
            with suppress(ValueError, KeyError, TypeError):
                step = Succession.of_entry(logged.entry.values)
                public = step.before if step.after == public and step.valid else public
        signers.append(public)
    return signers[::-1]
