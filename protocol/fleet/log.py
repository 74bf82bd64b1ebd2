"""The transparency log of a fleet: one hash chain over everything that its owner signs for devices.

An *entry* is a table of what was signed: a request, a list of members, a notice, a line of the run's journal, or the
owner's next key. Its *leaf* is the SHA-256 of its JSON, and the *head* of a log of n entries is SHA-256(head of the
first n - 1, leaf n), with the tags of RFC 6962, section 2.1, that keep leaves and heads apart. The server sends the
newest leaves and its signature of the head along with every request, as a `LogExtract`. A device keeps the last head
that it has seen, as a `Witness`, and answers only what is in a log that continues that head: it cannot be moved from
one log to another.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import ConfigError, TrustError, VectorError

# kinds of entries
REQUEST, MEMBERS, NOTICE, JOURNAL, KEY = "request", "members", "notice", "journal", "key"
WINDOW = 4096  # newest leaves that an extract has at most
LEAF = 32  # bytes of a leaf, and of a head's digest
REFUSED = "LogRefused"  # the code of a refusal


@dataclass(frozen=True, slots=True)
class Head:
    """The length of a log and its last digest, 32 bytes; as text ``SIZE:DIGEST`` in hexadecimal."""

    size: int
    digest: bytes

    def after(self, leaf: bytes) -> Head:
        """Return the head of the log with one more entry."""
        return Head(self.size + 1, hashlib.sha256(b"\1" + self.digest + leaf).digest())

    def __str__(self) -> str:
        return f"{self.size}:{self.digest.hex()}"


EMPTY = Head(0, bytes(LEAF))


def head_from_text(text: str) -> Head:
    """Read what `Head.__str__` has written; raises `ConfigError` if it is no head."""
    match = re.fullmatch(r"(\d{1,15}):([0-9a-f]{64})", text.strip(), re.ASCII)
    if not match:
        raise ConfigError(f"{text!r} is no head of a log: give SIZE:DIGEST as `fedoel device status` prints it")
    return Head(int(match[1]), bytes.fromhex(match[2]))


def leaf_of(kind: str, values: Mapping[str, Any]) -> bytes:
    """Return the leaf of an entry; its values are of JSON."""
    text = json.dumps({**values, "kind": kind}, sort_keys=True, allow_nan=False)
    return hashlib.sha256(b"\0" + text.encode()).digest()


@dataclass(frozen=True, slots=True)
class LogExtract:
    """The newest part of a log.

    Parameters
    ----------
    start
        Head of the log before this part.
    leaves
        Leaves of the entries behind it, 32 bytes each.
    signature
        Of the log's head by the fleet's owner (`fedoel.protocol.signing.sign_head`).

    Raises
    ------
    VectorError
        If a size is impossible.
    """

    start: Head
    leaves: bytes
    signature: bytes

    def __post_init__(self) -> None:
        if self.start.size < 0 or len(self.start.digest) != LEAF or len(self.leaves) % LEAF:
            raise VectorError(f"{len(self.leaves)} bytes behind entry {self.start.size} are no part of a log")

    @property
    def entries(self) -> list[bytes]:
        """The leaves, one by one."""
        return [self.leaves[at : at + LEAF] for at in range(0, len(self.leaves), LEAF)]

    @property
    def heads(self) -> list[Head]:
        """Heads of the log from before this part to its end."""
        heads = [self.start]
        for leaf in self.entries:
            heads.append(heads[-1].after(leaf))
        return heads


@dataclass(frozen=True, slots=True)
class Witness:
    """What a device keeps of its fleet's log.

    Parameters
    ----------
    head
        The last head that it has seen, first of all in its bundle; None before the first.
    members
        Leaf of the list of members that it had when it last saw the log; empty before that.
    """

    head: Head | None = None
    members: bytes = b""

    def after(self, extract: LogExtract, request: bytes, members: bytes, notice: bytes = b"") -> Witness:
        """Check an extract whose signature was checked, and return what the device keeps now.

        A device without a head, which has joined under an earlier release, takes the first log that it sees, and keeps
        its list of members.

        Parameters
        ----------
        request, members
            Leaves of the request that came with the extract, and of the list of members that the device has.
        notice
            Leaf of the newest notice that the device has; empty if it has none.

        Raises
        ------
        TrustError
            If the extract does not continue the log that the device has seen, or lacks what the device was sent.
        """
        heads, leaves, seen = extract.heads, set(extract.entries), self.head
        if seen and heads[-1].size < seen.size:
            raise _refusal(f"the log has {heads[-1].size} entries, and had {seen.size} when this device last saw it")
        if seen and seen.size < extract.start.size:
            raise TrustError(
                REFUSED,
                f"this device has the head {seen}, and the part of the log that came begins behind it, at entry "
                f"{extract.start.size}: have `fedoel server log verify` say that this head is in the log, then delete "
                "keys/log.head in this device's folder",
            )
        if seen and heads[seen.size - extract.start.size] != seen:
            raise _refusal(f"the log is another one than this device has seen: it does not have the head {seen}")
        if request not in leaves:
            raise _refusal("the request is not in the log that came with it")
        if seen and members != self.members and members not in leaves:
            raise _refusal("the list of members that this device was sent is not in the log")
        if notice and notice not in leaves:
            raise _refusal("the notice that this device was sent is not in the log")
        return Witness(heads[-1], members)


def read_witness(path: Path) -> Witness:
    """Read what `witness_text` has made; an empty witness if there is no file.

    Raises
    ------
    ConfigError
        If the file is damaged.
    """
    if not path.exists():
        return Witness()
    try:
        head, members = path.read_text(encoding="ascii").splitlines()
        return Witness(head_from_text(head), bytes.fromhex(members))
    except (OSError, ValueError) as error:
        raise ConfigError(
            f"{path} holds no head of the fleet's log ({error}): put back a copy, or delete it to begin with the next"
        ) from error


def witness_text(witness: Witness) -> str:
    """Return the text of a witness that has a head."""
    return f"{witness.head}\n{witness.members.hex()}\n"


def _refusal(what: str) -> TrustError:
    remedy = (
        "the server shows different devices different logs, or has lost its own: compare this device's head with those "
        "of others (`fedoel device status`)"
    )
    return TrustError(REFUSED, f"{what}; {remedy}")
