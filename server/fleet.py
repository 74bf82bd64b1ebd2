"""Keys of a fleet, made once: the owner's key pair and the signed list of members.

In a simulation, the folder also holds the seed of the devices' private keys; in a deployment, only their public keys.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..protocol.errors import ConfigError
from ..protocol.fleet.log import MEMBERS as LOGGED_MEMBERS
from ..protocol.fleet.log import NOTICE, LogExtract
from ..protocol.fleet.membership import (
    DEVICES_SEED,
    FLEET_KEY,
    MEMBERS,
    Members,
    load_members,
    sign_members,
    simulated_key,
)
from ..protocol.host.files import make_private_folder, replace_file, write_whole
from .log import FleetLog

OWNER_KEY, SERIAL = "fleet.key", "fleet.serial"


def make_fleet(folder: Path, clients: int, begun: bool = False) -> None:
    """Make the keys of a simulated fleet, unless the folder has them already.

    Parameters
    ----------
    begun
        Whether the run has a journal, which only its own key continues.

    Raises
    ------
    ConfigError
        As `make_owner` does, or if a run that has begun has lost its list of members.
    """
    if not (folder / MEMBERS).exists():  # the file that is written last
        if begun:
            raise ConfigError(f"{folder / MEMBERS} is missing: put back a copy of {folder}, or start another run")
        seed = secrets.token_bytes(32)
        keys = (simulated_key(seed, client) for client in range(clients))
        make_owner(folder, [key.public_key().public_bytes_raw() for key in keys], seed)


def make_owner(folder: Path, members: Sequence[bytes] = (), seed: bytes = b"") -> None:
    """Make the key pair of the fleet's owner, and the first list of members.

    Parameters
    ----------
    members
        Public keys of the devices.
    seed
        What the private keys of simulated devices are derived from.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """
    owner = Ed25519PrivateKey.generate()
    try:
        make_private_folder(folder)
        if seed:
            replace_file(folder / DEVICES_SEED, seed.hex(), secret=True)
        replace_file(folder / OWNER_KEY, owner.private_bytes_raw().hex(), secret=True)
        replace_file(folder / FLEET_KEY, owner.public_key().public_bytes_raw().hex())
    except OSError as error:
        raise ConfigError(f"cannot write keys to {folder}: {error.strerror}; choose another folder") from error
    write_whole(folder / MEMBERS, sign_members(owner, 1, members))


def publish_members(folder: Path, members: Sequence[bytes]) -> None:
    """Sign a list of members, which replaces all earlier ones, and write it atomically, to the fleet's log first."""
    key, number = owner_key(folder), load_members(folder)[0].number + 1
    FleetLog(folder).add(key, LOGGED_MEMBERS, **Members(number, frozenset(members)).entry)
    write_whole(folder / MEMBERS, sign_members(key, number, members))


def newest_log(folder: Path, log: FleetLog | None = None) -> LogExtract:
    """Return the newest part of the fleet's log, which has the present list of members and the newest notice.

    Parameters
    ----------
    log
        The log in the folder, of a process that looks at it again and again.
    """
    key, log = owner_key(folder), log or FleetLog(folder)
    # The list may be of a release without a log, or older than what is sent of the log; so may the notice be.
    log.add(key, LOGGED_MEMBERS, once=True, **load_members(folder)[0].entry)
    if notice := log.newest(NOTICE):
        log.add(key, NOTICE, once=True, **notice)
    return log.extract(key)


def owner_key(folder: Path, name: str = OWNER_KEY) -> Ed25519PrivateKey:
    """Read the private key of the fleet's owner, the present one by default.

    Raises
    ------
    ConfigError
        If it is missing or malformed.
    """
    path = folder / name
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no key ({error}): put the fleet's key there") from error


def next_serial(folder: Path) -> int:
    """Return the serial number of the next request, which increases strictly, also over crashes."""
    path = folder / SERIAL
    serial = int(path.read_text(encoding="ascii")) + 1 if path.exists() else 1
    write_whole(path, str(serial))
    return serial
