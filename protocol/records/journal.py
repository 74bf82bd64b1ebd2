"""The journal of a run: a chain of signed entries, one a line, of what was decided and of what is on disk for it.

Every entry holds the SHA-256 of the line before it (zeros in the first) and an Ed25519 signature of the fleet's owner
over its own text, so that a line can be neither changed nor removed without breaking the chain behind it. Whoever has
the owner's key can write another chain: keep the digest of the last line elsewhere to see that, too.

A line is the JSON of the entry with the signature, in hexadecimal, as its last field. What is signed is the line
without that field.

=============  =========================================================================================
kind           meaning
=============  =========================================================================================
``opened``     the journal began: digest of the run's settings, and what was finished before
``decided``    a cycle ended: its decision, cohorts, epsilon, and digests of everything that it left on disk
``current``    a version became current, by a cycle's gate or by an operator
``taken``      the run took an operator's choice, in this cycle
``removed``    files of versions were removed
``raised``     the run was given more cycles: how many, instead of how many, and the digest of its settings with them
``ended``      the run came to its end
=============  =========================================================================================
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import RecordError
from ..formats import JOURNAL

PURPOSE = JOURNAL.purpose
FIRST = "0" * 64  # what the first entry names as the digest of the line before
FIELD = ', "signature": "'
OPENED, DECIDED, CURRENT, TAKEN, REMOVED, ENDED = "opened", "decided", "current", "taken", "removed", "ended"
RAISED = "raised"


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry.

    Parameters
    ----------
    number
        Its position in the journal, from 1.
    previous
        SHA-256 of the line before, in hexadecimal.
    kind
        What it records.
    values
        Its other fields.
    digest
        SHA-256 of its own line, in hexadecimal.
    """

    number: int
    previous: str
    kind: str
    values: Mapping[str, Any]
    digest: str


def new_line(
    key: Ed25519PrivateKey, number: int, previous: str, kind: str, values: Mapping[str, Any], purpose: bytes = PURPOSE
) -> bytes:
    """Return a signed line, without a line end; the purpose tells lines of different files apart."""
    body = json.dumps({"number": number, "previous": previous, "kind": kind, **values}, allow_nan=False)
    return f'{body[:-1]}{FIELD}{key.sign(purpose + body.encode()).hex()}"}}'.encode()


def read_line(line: bytes) -> Entry:
    """Read a line; its signature is not checked.

    Raises
    ------
    RecordError
        If it is no entry.
    """
    try:
        table = json.loads(line)
        values = {
            name: value for name, value in table.items() if name not in ("number", "previous", "kind", "signature")
        }
        digest = hashlib.sha256(line).hexdigest()
        return Entry(int(table["number"]), str(table["previous"]), str(table["kind"]), values, digest)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise RecordError(f"it is no entry of a journal ({error})") from error


def is_signed(line: bytes, public: bytes, purpose: bytes = PURPOSE) -> bool:
    """Whether a line carries a valid signature of the owner of a public key, 32 bytes."""
    body, found, signature = line.rpartition(FIELD.encode())
    if not found or not signature.endswith(b'"}'):
        return False
    try:
        value = bytes.fromhex(signature[:-2].decode("ascii"))
        Ed25519PublicKey.from_public_bytes(public).verify(value, purpose + body + b"}")
    except (InvalidSignature, ValueError):
        return False
    return value.hex().encode() == signature[:-2]  # other spellings of the same number are changes, too


def chain_problems(lines: Sequence[bytes], public: bytes) -> list[str]:
    """Check a chain, and return a sentence for each line that does not hold; an empty list if all do."""
    problems, previous = list[str](), FIRST
    for number, line in enumerate(lines, 1):
        try:
            entry = read_line(line)
        except RecordError as error:
            problems.append(f"line {number}: {error}")
        else:
            if not is_signed(line, public):
                problems.append(f"line {number}: it is not signed by this fleet's key, or was changed")
            if entry.number != number or entry.previous != previous:
                problems.append(f"line {number}: it does not follow the line before")
        previous = hashlib.sha256(line).hexdigest()
    return problems
