"""From one key of a fleet's owner to the next: the old key signs the new one, and devices follow."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import EnrolmentError
from ..formats import SUCCESSOR

PURPOSE = SUCCESSOR.purpose
STEP = re.compile(r"([0-9a-f]{64}):([0-9a-f]{64}):([0-9a-f]{128})")


@dataclass(frozen=True, slots=True)
class Succession:
    """One step. As text, its three parts in hexadecimal with colons between them; steps have spaces between them.

    Parameters
    ----------
    before, after
        The public keys, 32 bytes each.
    signature
        Of the new key by the old one.
    """

    before: bytes
    after: bytes
    signature: bytes

    @classmethod
    def signed(cls, before: Ed25519PrivateKey, after: bytes) -> Succession:
        """Return the step from a key to another one."""
        return cls(before.public_key().public_bytes_raw(), after, before.sign(PURPOSE + after))

    @property
    def entry(self) -> Mapping[str, Any]:
        """Its entry in the fleet's log, which `str` and `of_entry` read."""
        return {"before": self.before.hex(), "after": self.after.hex(), "signed": self.signature.hex()}

    @classmethod
    def of_entry(cls, values: Mapping[str, Any]) -> Succession:
        """Read an entry of the fleet's log; raises `ValueError` or `KeyError`."""
        return cls(*(bytes.fromhex(values[name]) for name in ("before", "after", "signed")))

    @property
    def valid(self) -> bool:
        """Whether the old key has signed the new one."""
        try:
            Ed25519PublicKey.from_public_bytes(self.before).verify(self.signature, PURPOSE + self.after)
        except (InvalidSignature, ValueError):
            return False
        return True

    def __str__(self) -> str:
        return f"{self.before.hex()}:{self.after.hex()}:{self.signature.hex()}"


def steps_from_text(text: str) -> list[Succession]:
    """Read steps; raises `EnrolmentError` if the text is malformed."""
    matches = [STEP.fullmatch(word) for word in text.split()]
    if None in matches:
        raise EnrolmentError("the bundle's steps from one key of the fleet to the next are malformed: ask for it again")
    return [Succession(*map(bytes.fromhex, match.groups())) for match in matches if match]


def leads_to(text: str, known: str, wanted: str) -> bool:
    """Whether steps lead from a key that a device knows to another one, both in hexadecimal."""
    key = bytes.fromhex(known)
    for step in steps_from_text(text):
        if step.before == key and step.valid:
            key = step.after
    return key == bytes.fromhex(wanted)
