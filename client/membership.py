"""What makes a device a member of a fleet: its own key, and the list of members that the fleet's owner has signed.

A folder holds ``fleet.pub`` (whom to believe), ``members.json`` and its signature, and one private key a device. Keys
are raw Ed25519 keys in hexadecimal, private ones readable by their owner alone.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from ..protocol.errors import ConfigError, VersionError
from ..protocol.messages import PlayRequest
from ..protocol.secagg.keys import Identity
from ..protocol.signing import check_request
from .secret_file import exposed

FLEET_KEY, MEMBERS, SIGNATURE = "fleet.pub", "members.json", "members.sig"


@dataclass(frozen=True, slots=True)
class Membership:
    """A device's identity, the public keys of all members, and the key that signs what the fleet's owner says.

    `seen` is the file with the serial number of the last request that this device has taken.
    """

    identity: Identity
    members: frozenset[bytes]
    fleet_key: bytes
    seen: Path

    def accept(self, request: PlayRequest) -> None:
        """Take a request that the fleet's owner has signed, and none that is older than one that was taken before.

        Raises
        ------
        VersionError
            If it is not signed, was changed, or is a replay.
        """
        check_request(self.fleet_key, request)
        last = int(self.seen.read_text(encoding="ascii")) if self.seen.exists() else 0
        if request.serial < last:
            raise VersionError(f"request {request.serial} is older than {last}, which this device has taken")
        if request.serial > last:
            part = self.seen.with_suffix(".part")
            part.write_text(str(request.serial), encoding="ascii")
            os.replace(part, self.seen)


def device_key(client: int) -> str:
    """Name of the file with a device's private key."""
    return f"device-{client}.key"


def load_membership(folder: Path, client: int) -> Membership:
    """Read and check what a device has been given.

    Raises
    ------
    ConfigError
        If something is missing or damaged, others may read the private key, or the list is not signed.
    """
    members, fleet_key = load_members(folder)
    path = folder / device_key(client)
    try:
        if exposed(path):
            raise ConfigError(f"others may read {path}: chmod 600 it, and give this device a new key if they did")
        identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii"))))
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} holds no key of this device ({error}): let it join the fleet again") from error
    return Membership(identity, members, fleet_key, path.with_suffix(".serial"))


def load_members(folder: Path) -> tuple[frozenset[bytes], bytes]:
    """Read the public keys of a fleet's members, and the fleet's own; raises as `load_membership` does."""
    try:
        fleet_key = bytes.fromhex((folder / FLEET_KEY).read_text(encoding="ascii"))
        listed = (folder / MEMBERS).read_bytes()
        Ed25519PublicKey.from_public_bytes(fleet_key).verify((folder / SIGNATURE).read_bytes(), listed)
        return frozenset(bytes.fromhex(member) for member in json.loads(listed)), fleet_key
    except InvalidSignature as error:
        raise ConfigError(f"{folder / MEMBERS} is not signed by the fleet's key: fetch it again") from error
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{folder} is no folder of a fleet's keys ({error}): let this device join again") from error
