"""The members of a fleet: a numbered list of public keys, signed by the fleet's owner, that devices keep the newest of.

Written as one text: the signature in hexadecimal on the first line, the list as JSON on the second.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..errors import VersionError

PURPOSE = b"fedoel members 1\0"
IDENTITY = 32


@dataclass(frozen=True, slots=True)
class Members:
    """Who belongs to a fleet.

    Parameters
    ----------
    number
        Larger in every list of a fleet's owner than in those before, so that nobody can bring back one who was removed.
    identities
        Ed25519 public keys, 32 bytes each.
    """

    number: int
    identities: frozenset[bytes]


def sign_members(key: Ed25519PrivateKey, number: int, identities: Sequence[bytes]) -> str:
    """Write what `read_members` reads."""
    listed = json.dumps({"number": number, "members": [identity.hex() for identity in identities]})
    return f"{key.sign(PURPOSE + listed.encode()).hex()}\n{listed}\n"


def read_members(fleet_key: bytes, text: str) -> Members:
    """Read a list that the fleet's owner has signed.

    Raises
    ------
    VersionError
        If the signature does not hold, or what is signed is no list of members.
    """
    signature, _, listed = text.strip().partition("\n")
    try:
        Ed25519PublicKey.from_public_bytes(fleet_key).verify(bytes.fromhex(signature), PURPOSE + listed.encode())
        values = json.loads(listed)
        members = Members(int(values["number"]), frozenset(bytes.fromhex(member) for member in values["members"]))
        if any(len(identity) != IDENTITY for identity in members.identities):
            raise ValueError(f"a member's key has {IDENTITY} bytes")
        return members
    except InvalidSignature as error:
        raise VersionError("the list of members is not signed by this fleet's key: fetch it again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise VersionError("what should be the list of members is something else: fetch it again") from error
