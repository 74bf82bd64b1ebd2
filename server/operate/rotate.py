"""A new key of the fleet's owner, which the old one signs: `fedoel server rotate`.

It happens between runs, since a run's journal and versions are signed by one key. The fleet's log goes on: its last
line under the old key names the new one. Every step can be repeated, so that the same command finishes a rotation that
was interrupted.
"""

from __future__ import annotations

from shlex import quote

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from ...protocol.errors import ConfigError, FedoelError, VersionError
from ...protocol.fleet.log import KEY
from ...protocol.fleet.membership import FLEET_KEY, MEMBERS, read_members, sign_members
from ...protocol.fleet.succession import Succession
from ...protocol.host.files import create_secret, replace_file
from ...protocol.host.lock import in_turn, one_owner
from ..fleet import OWNER_KEY, owner_key
from ..log import FleetLog
from ..run_folder import STORED
from .folder import ServerFolder, read_settings

NEXT = "next.key"  # the new key, until the rotation is complete


def rotate(folder: ServerFolder) -> int:
    """Make a new key for the fleet's owner, and say what devices need.

    Raises
    ------
    ConfigError
        If a run has begun in the folder, the server runs, or the old key is missing.
    """
    read_settings(folder)
    if (folder.run / STORED).exists():
        raise ConfigError(
            f"{folder.run} is signed by the present key, and another one could not verify it: let the run end, check "
            "it with `fedoel verify`, and move it away first"
        )
    with one_owner(folder.lock, f"runs the server in {folder.path}: stop it first"), in_turn(folder.roll_lock):
        try:
            _rotate(folder)
        except OSError as error:
            raise FedoelError(f"{folder.fleet} cannot be written: {error.strerror}; do it again") from error
    print(f"the fleet has a new key; the old one has signed it in {FleetLog(folder.fleet).path}")
    print("devices refuse the new key until they have joined again with a new bundle: for every device")
    print(f"  fedoel server enroll {quote(str(folder.path))} DEVICE.pub")
    print("  fedoel device join DIR --bundle NAME.fleet")
    return 0


def _rotate(folder: ServerFolder) -> None:
    keys, log = folder.fleet, FleetLog(folder.fleet)
    old, text = owner_key(keys), (keys / MEMBERS).read_text(encoding="ascii")
    create_secret(keys / NEXT, Ed25519PrivateKey.generate().private_bytes_raw().hex())
    new = owner_key(keys, NEXT)
    before, after = (key.public_key().public_bytes_raw() for key in (old, new))
    if before != after:  # otherwise only the file of the new key is left to be deleted
        log.add(old, KEY, once=True, **Succession.signed(old, after).entry)
        try:
            members = read_members(before, text)
        except VersionError:  # signed anew already
            members = read_members(after, text)
        replace_file(keys / MEMBERS, sign_members(new, members.number, sorted(members.identities)))
        replace_file(keys / FLEET_KEY, after.hex())
        replace_file(keys / OWNER_KEY, new.private_bytes_raw().hex(), secret=True)  # the last file under the old key
    (keys / NEXT).unlink()
