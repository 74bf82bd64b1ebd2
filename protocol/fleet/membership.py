"""What makes a device a member of a fleet: its own key, and the list of members that the fleet's owner has signed.

A folder holds ``fleet.pub`` (whom to believe), ``members`` (the signed list) and one private key a device. Keys are raw
Ed25519 keys in hexadecimal, private ones readable by their owner alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..config import RunConfig
from ..errors import ConfigError, VersionError
from ..host.files import write_whole
from ..host.secret_file import check_secret
from ..messages import PlayRequest
from ..secagg.keys import Identity
from ..signing import check_request
from .members import Members, read_members

FLEET_KEY, MEMBERS = "fleet.pub", "members"


@dataclass(frozen=True, slots=True)
class Membership:
    """A device's identity, the public keys of all members, and the key that signs what the fleet's owner says.

    `seen` is the file with the serial number of the last request that this device has taken, `listed` that with the
    list of members, and `number` the list's.
    """

    identity: Identity
    members: frozenset[bytes]
    fleet_key: bytes
    seen: Path
    listed: Path | None = None
    number: int = 0

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
            write_whole(self.seen, str(request.serial))

    def renewed(self, text: str) -> Membership:
        """Take a list of members that came with a request, keep it if it is newer, and refuse an older one.

        Parameters
        ----------
        text
            The signed list, or nothing where the fleet is that of a simulation.

        Raises
        ------
        VersionError
            If it is not signed, or older than the list that this device has.
        """
        if not text:
            return self
        members = read_members(self.fleet_key, text)
        if members.number < self.number:
            raise VersionError(f"list of members {members.number} is older than {self.number}, which this device has")
        if members.number > self.number and self.listed is not None:
            write_whole(self.listed, text)
        return replace(self, members=members.identities, number=members.number)


def device_key(client: int) -> str:
    """Name of the file with a device's private key."""
    return f"device-{client}.key"


def load_membership(folder: Path, client: int) -> Membership:
    """Read and check what one device of a simulation has been given; raises as `membership_at` does."""
    return membership_at(folder, folder / device_key(client))


def membership_at(folder: Path, path: Path) -> Membership:
    """Read and check what a device has been given.

    Parameters
    ----------
    folder
        Where the fleet's key and the list of members are.
    path
        The device's private key.

    Raises
    ------
    ConfigError
        If something is missing or damaged, others may read the private key, or the list is not signed.
    """
    members, fleet_key = load_members(folder)
    try:
        check_secret(path, "give this device a new key")
        identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii"))))
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} holds no key of this device ({error}): let it join the fleet again") from error
    seen, listed = path.with_suffix(".serial"), folder / MEMBERS
    return Membership(identity, members.identities, fleet_key, seen, listed, members.number)


def load_members(folder: Path) -> tuple[Members, bytes]:
    """Read the list of a fleet's members, and the fleet's own public key; raises as `membership_at` does."""
    try:
        fleet_key = bytes.fromhex((folder / FLEET_KEY).read_text(encoding="ascii"))
        return read_members(fleet_key, (folder / MEMBERS).read_text(encoding="ascii")), fleet_key
    except VersionError as error:
        raise ConfigError(f"{folder / MEMBERS}: {error}") from error
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder} is no folder of a fleet's keys ({error}): let this device join again") from error


class RunMode(Enum):
    """Whose devices take part in a run."""

    SIMULATION = "simulation"  # the run makes the keys of all devices, in a folder that all of them read
    DEPLOYMENT = "deployment"  # the fleet's keys exist before the run, and no device's private key is among them

    @classmethod
    def of(cls, config: RunConfig) -> RunMode:
        """Return the mode of a run: one that names a folder of keys is of a deployed fleet."""
        return cls.DEPLOYMENT if config.privacy.keys else cls.SIMULATION


def keys_folder(config: RunConfig) -> Path:
    """Return the folder of the fleet's keys: a deployment's own, or ``keys`` in the folder of a simulated run."""
    if RunMode.of(config) is RunMode.DEPLOYMENT:
        return Path(config.privacy.keys).expanduser()
    return Path(config.out) / "keys"
