"""Keys of a fleet: made once, for a simulation all in one folder."""

from __future__ import annotations

import json
import os
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ..client.membership import FLEET_KEY, MEMBERS, SIGNATURE, device_key
from ..protocol.errors import ConfigError
from .files import write_whole

OWNER_KEY, SERIAL = "fleet.key", "fleet.serial"


def make_fleet(folder: Path, clients: int) -> None:
    """Make the keys of a whole fleet; a folder that has them already is left as it is.

    Raises
    ------
    ConfigError
        If the folder cannot be written.
    """
    if (folder / SIGNATURE).exists():  # written last
        return
    owner, devices = (Ed25519PrivateKey.generate(), [Ed25519PrivateKey.generate() for _ in range(clients)])
    members = json.dumps([device.public_key().public_bytes_raw().hex() for device in devices]).encode()
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_secret(folder / OWNER_KEY, owner.private_bytes_raw().hex())
        for client, device in enumerate(devices):
            write_secret(folder / device_key(client), device.private_bytes_raw().hex())
        (folder / FLEET_KEY).write_text(owner.public_key().public_bytes_raw().hex(), encoding="ascii")
        (folder / MEMBERS).write_bytes(members)
        (folder / SIGNATURE).write_bytes(owner.sign(members))
    except OSError as error:
        raise ConfigError(f"keys cannot be kept in {folder}: {error.strerror}; choose another folder") from error


def write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner may read, from its first byte on."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(text)


def owner_key(folder: Path) -> Ed25519PrivateKey:
    """Read the key that signs for the fleet.

    Raises
    ------
    ConfigError
        If it is not there.
    """
    path = folder / OWNER_KEY
    try:
        return Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii")))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path} holds no key ({error}); put the fleet's key there") from error


def next_serial(folder: Path) -> int:
    """Number the next request: larger than every one before, whatever has crashed in between."""
    path = folder / SERIAL
    serial = int(path.read_text(encoding="ascii")) + 1 if path.exists() else 1
    write_whole(path, str(serial).encode())
    return serial
