"""The transparency log of a fleet on disk, ``log.jsonl`` beside the owner's key: see `fedoel.protocol.fleet.log`.

One signed line an entry, as in a run's journal, with the digest of the log's head before it. An entry is forced to the
disk before what it is about is sent. A line that a crash has torn was never sent, and is cut off. All runs of a fleet
have one log. Simulations have none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..protocol.errors import FedoelError, RecordError
from ..protocol.fleet.log import EMPTY, KEY, WINDOW, Head, LogExtract, leaf_of
from ..protocol.fleet.succession import Succession
from ..protocol.host.files import append_line, drop_torn_line
from ..protocol.host.lock import in_turn
from ..protocol.records.journal import Entry, is_signed, new_line, read_line
from ..protocol.signing import sign_head

NAME = "log.jsonl"
PURPOSE = b"fedoel log 1\0"


@dataclass(frozen=True, slots=True)
class Logged:
    """An entry, its leaf, and the log's head after it."""

    entry: Entry
    leaf: bytes
    head: Head


class FleetLog:
    """The log of the fleet whose keys are in a folder; it may not exist yet."""

    def __init__(self, keys: Path) -> None:
        self.path = keys / NAME

    @property
    def begun(self) -> bool:
        """Whether there is a log: there is none in a simulation."""
        return self.path.exists()

    def add(self, key: Ed25519PrivateKey, kind: str, *, once: bool = False, **values: Any) -> list[Logged]:
        """Append an entry, force it to the disk, and return all entries.

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
            entries, leaf = self._entries(), leaf_of(kind, values)
            if once and leaf in {logged.leaf for logged in entries[-WINDOW:]}:
                return entries
            head = entries[-1].head if entries else EMPTY
            line = new_line(key, head.size + 1, head.digest.hex(), kind, values, PURPOSE)
            try:
                append_line(self.path, line)
            except OSError as error:
                raise FedoelError(f"{self.path} cannot be written: {error.strerror}; make room and go on") from error
            return [*entries, Logged(read_line(line), leaf, head.after(leaf))]

    def extract(self, key: Ed25519PrivateKey, entries: Sequence[Logged] | None = None) -> LogExtract:
        """Return the newest part of the log, with the owner's signature of its head; raises as `add` does.

        Parameters
        ----------
        entries
            What `add` has just returned; by default they are read.
        """
        entries = self._entries() if entries is None else entries
        earlier, newest = entries[:-WINDOW], entries[-WINDOW:]
        head = entries[-1].head if entries else EMPTY
        start = earlier[-1].head if earlier else EMPTY
        return LogExtract(start, b"".join(logged.leaf for logged in newest), sign_head(key, head))

    def of_kind(self, kind: str) -> list[Entry]:
        """Return the entries of a kind, oldest first; raises as `add` does."""
        return [logged.entry for logged in self._entries() if logged.entry.kind == kind]

    def _entries(self) -> list[Logged]:
        """Read the log and check that its entries follow each other; their signatures are not checked."""
        lines, _ = read_lines(self.path)
        entries = list[Logged]()
        for number, (logged, problem) in enumerate(chained(lines), 1):
            if problem or logged is None:
                raise FedoelError(
                    f"{self.path}, line {number}: {problem}; put back a copy of the file: devices refuse another log"
                )
            entries.append(logged)
        return entries


def chained(lines: Sequence[bytes]) -> Iterator[tuple[Logged | None, str]]:
    """Read lines one after the other; yield an entry with its head, and what is wrong with its place in the chain.

    After a line that is no entry, there are no heads: None is yielded for it and all that follow.
    """
    head: Head | None = EMPTY
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
