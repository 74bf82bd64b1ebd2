"""The members of a fleet: a numbered list of public keys, signed by the fleet's owner. Devices keep the newest.

Text format: the signature in hexadecimal on the first line, the list as JSON on the second.
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
    """The identities that belong to a fleet.

    Parameters
    ----------
    number
        Number of the list; it increases with every list, so that an old list cannot restore a removed member.
    identities
        Ed25519 public keys, 32 bytes each.
    """

    number: int
    identities: frozenset[bytes]


def sign_members(key: Ed25519PrivateKey, number: int, identities: Sequence[bytes]) -> str:
    """Return the signed text of a list; `read_members` reads it."""
    body = json.dumps({"number": number, "members": [identity.hex() for identity in identities]})
    return f"{key.sign(PURPOSE + body.encode()).hex()}\n{body}\n"


def read_members(fleet_key: bytes, text: str) -> Members:
    """Read a list of members and check the owner's signature.

    Parameters
    ----------
    fleet_key
        The fleet's public key, 32 bytes.
    text
        What `sign_members` returned.

    Raises
    ------
    VersionError
        If the signature is invalid, or the text is no list of members.
    """
    signature, _, body = text.strip().partition("\n")
    try:
        Ed25519PublicKey.from_public_bytes(fleet_key).verify(bytes.fromhex(signature), PURPOSE + body.encode())
        values = json.loads(body)
        members = Members(int(values["number"]), frozenset(bytes.fromhex(member) for member in values["members"]))
        if any(len(identity) != IDENTITY for identity in members.identities):
            raise ValueError(f"a member's key has {IDENTITY} bytes")
        return members
    except InvalidSignature as error:
        raise VersionError("the list of members is not signed by this fleet's key: fetch it again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise VersionError("the list of members is malformed: fetch it again") from error
