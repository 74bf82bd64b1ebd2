"""A device's membership in a fleet: its private key, the fleet's public key, and the signed list of members.

The list is numbered, and signed by the fleet's owner; devices keep the newest. Its text holds the signature in
hexadecimal on the first line, and the list as JSON on the second.

A folder contains ``fleet.pub`` (the fleet's public key), ``members`` (the signed list) and the device's private key.
Keys are raw Ed25519 keys in hexadecimal; private ones are readable by their owner only. In a simulation, all devices
have one folder, and their keys are derived from its ``devices.seed``.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import lru_cache
from pathlib import Path
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .. import formats
from ..config import DIGITS, RunConfig, Scalar, settings_digest
from ..errors import ConfigError, TrustError, VersionError
from ..host.cache import expanded
from ..host.files import check_secret, write_whole
from ..messages import PlayRequest
from ..release import CODE as RELEASE_CODE
from ..secagg.keys import Identity
from ..settings import settings_of
from ..signing import check_head, check_request, check_terms, entry_of_request
from .log import MEMBERS as LOGGED_MEMBERS
from .log import NOTICE, REFUSED, REQUEST, leaf_of, read_witness, witness_text
from .notice import kept_notice

FLEET_KEY, MEMBERS, DEVICES_SEED = "fleet.pub", "members", "devices.seed"
PURPOSE = formats.MEMBERS.purpose
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

    @property
    def entry(self) -> Mapping[str, Any]:
        """The list's entry in the fleet's log."""
        digest = hashlib.sha256(b"".join(sorted(self.identities))).hexdigest()
        return {"list": self.number, "devices": len(self.identities), "sha256": digest}

    def check_replaceable_by(self, other: Members) -> None:
        """Refuse a list that may not take this one's place: every taker of a list checks this, wherever it is from.

        Raises
        ------
        VersionError
            If the other list is older, so that it may name a member that was revoked since; or if it is another list
            with the same number, of which a fleet has one only.
        """
        if other.number < self.number:
            raise VersionError(f"list of members {other.number} is older than {self.number}, which this device has")
        if other.number == self.number and other.identities != self.identities:
            raise VersionError(
                f"there are two lists of members with the number {self.number}: the fleet's key made both"
            )


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


@dataclass(frozen=True, slots=True)
class Membership:
    """What a device needs to take part in a fleet.

    Parameters
    ----------
    identity
        The device's signing key.
    members
        Public keys of all members, 32 bytes each.
    fleet_key
        The fleet's public key, which verifies requests and lists of members.
    serial_file
        File with the serial number of the last accepted request; None to keep none.
    members_file
        File with the list of members; None to keep no copy.
    number
        Number of the list of members.
    log_file
        File with the last head of the fleet's log that the device has seen; None for a device that checks no log.
    notice_file
        File with the newest notice of the fleet's owner; None to keep none.
    """

    identity: Identity
    members: frozenset[bytes]
    fleet_key: bytes
    serial_file: Path | None
    members_file: Path | None = None
    number: int = 0
    log_file: Path | None = None
    notice_file: Path | None = None

    @property
    def fleet(self) -> str:
        """Name of the fleet: the beginning of its public key in hexadecimal."""
        return self.fleet_key.hex()[:16]

    def accept(self, request: PlayRequest, config: RunConfig, received: Mapping[str, Scalar] | None = None) -> None:
        """Check signature, serial number and log of a request, and store the serial number and the log's head.

        Parameters
        ----------
        request
            The request.
        config
            The run's configuration as Flower has brought it, which nobody has signed.
        received
            All of its settings as Flower has brought them, with those that this release does not know.

        Raises
        ------
        VersionError
            If the request is not signed, was changed, is of a run with another configuration, or is older than one
            that was accepted before.
        TrustError
            If it is not in the log that this device has seen before, or comes without a log; or if it is of a release
            that did not sign the run's configuration.
        """
        check_request(self.fleet_key, request)
        if not request.config:
            raise TrustError(
                RELEASE_CODE,
                "the run's configuration is not signed with the request, as a server of an earlier release sends it: "
                "whoever runs the server has to upgrade it",
            )
        if request.config not in signed_digests(config, received or {}):
            raise VersionError("the run's configuration is not the one that this fleet's owner has signed")
        if self.serial_file is None:
            return
        self._check_log(request)
        last = int(self.serial_file.read_text(encoding="ascii")) if self.serial_file.exists() else 0
        if request.serial < last:
            raise VersionError(f"request {request.serial} is older than {last}, which this device has accepted")
        if request.serial > last:
            write_whole(self.serial_file, str(request.serial).encode())

    def check_terms(self, text: bytes, signature: bytes) -> None:
        """Check that the fleet's owner has signed the terms of a round.

        Whoever carries the messages could otherwise choose who is added up with whom, and the number of a round, behind
        which a device takes part in no earlier one.

        Parameters
        ----------
        text
            The terms as JSON, as they were received.

        Raises
        ------
        VersionError
            If the signature is invalid.
        TrustError
            If there is none, as of a server of a release that did not sign terms.
        """
        if not signature:
            raise TrustError(
                RELEASE_CODE,
                "the terms of a secure sum are not signed, as a server of an earlier release sends them: whoever runs "
                "the server has to upgrade it",
            )
        check_terms(self.fleet_key, signature, text)

    def _check_log(self, request: PlayRequest) -> None:
        """Check that a request is in a log that continues the one that this device has seen, and keep its head."""
        if self.log_file is None:
            return
        if request.log is None:
            raise TrustError(
                REFUSED,
                "the request comes without the fleet's log, as a server of an earlier release sends it: whoever runs "
                "the server has to upgrade it",
            )
        check_head(self.fleet_key, request.log.signature, request.log.heads[-1])
        before, members = read_witness(self.log_file), leaf_of(LOGGED_MEMBERS, Members(self.number, self.members).entry)
        kept = kept_notice(self.notice_file) if self.notice_file else None
        notice = leaf_of(NOTICE, kept.entry) if kept else b""
        after = before.after(request.log, leaf_of(REQUEST, entry_of_request(request)), members, notice)
        if after != before:
            write_whole(self.log_file, witness_text(after))

    def renewed(self, text: str) -> Membership:
        """Return the membership with a received list of members, and store the list if it is newer.

        Parameters
        ----------
        text
            The signed list; empty in simulations, where the list does not change.

        Raises
        ------
        VersionError
            If the list is not signed, older than this device's, or another one with the same number.
        """
        if not text:
            return self
        members = read_members(self.fleet_key, text)
        Members(self.number, self.members).check_replaceable_by(members)
        if members.number > self.number and self.members_file is not None:
            write_whole(self.members_file, text.encode())
        return replace(self, members=members.identities, number=members.number)


def signed_digests(config: RunConfig, received: Mapping[str, Scalar]) -> set[str]:
    """Return the digests of which the fleet's owner has to have signed one: of settings as they were received, or read.

    A server may leave out settings that are at their default. What is read says nothing of settings that this release
    does not know.
    """
    unknown = received.keys() - settings_of(RunConfig).keys()
    return {settings_digest(received)[:DIGITS], *([] if unknown else [config.digest])}


def device_key(client: int) -> str:
    """Return the name of the file with a device's private key."""
    return f"device-{client}.key"


def membership_at(folder: Path, path: Path) -> Membership:
    """Load and check a device's membership.

    Parameters
    ----------
    folder
        Folder with the fleet's public key and the list of members.
    path
        File with the device's private key.

    Raises
    ------
    ConfigError
        If a file is missing or damaged, other users may read the private key, or the list is not signed.
    """
    members, fleet_key = load_members(folder)
    try:
        check_secret(path, "give this device a new key")
        identity = Identity(Ed25519PrivateKey.from_private_bytes(bytes.fromhex(path.read_text(encoding="ascii"))))
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} holds no key of this device ({error}): let it join the fleet again") from error
    serial_file = path.with_suffix(".serial")
    return Membership(identity, members.identities, fleet_key, serial_file, folder / MEMBERS, members.number)


def simulated_membership(folder: Path, client: int) -> Membership:
    """Load the membership of a simulated device, which keeps no serial numbers; raises as `membership_at` does.

    Its key is the one that the folder holds for it, where an earlier release has made the folder.
    """
    if (folder / device_key(client)).exists():
        return membership_at(folder, folder / device_key(client))
    members, fleet_key = load_members(folder)
    path = folder / DEVICES_SEED
    try:
        check_secret(path, "make the run again in another folder")
        identity = Identity(simulated_key(bytes.fromhex(path.read_text(encoding="ascii")), client))
    except (OSError, ValueError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path} holds no seed of keys ({error}): make the run again in another folder") from error
    return Membership(identity, members.identities, fleet_key, None, None, members.number)


def simulated_key(seed: bytes, client: int) -> Ed25519PrivateKey:
    """Derive the private key of a simulated device."""
    return Ed25519PrivateKey.from_private_bytes(hashlib.sha256(seed + client.to_bytes(8, "big")).digest())


def read_fleet_key(folder: Path) -> bytes:
    """Read the fleet's public key from a folder of keys; raises `OSError` or `ValueError`."""
    return bytes.fromhex((folder / FLEET_KEY).read_text(encoding="ascii"))


def load_members(folder: Path) -> tuple[Members, bytes]:
    """Load the list of a fleet's members and the fleet's public key; raises as `membership_at` does."""
    try:
        stamps = [(stat.st_ino, stat.st_mtime_ns, stat.st_size) for stat in map(Path.stat, _files_of(folder))]
    except OSError as error:
        raise _no_folder(folder, error) from error
    return _load_members(folder, tuple(stamps))


def _files_of(folder: Path) -> tuple[Path, Path]:
    return folder / FLEET_KEY, folder / MEMBERS


def _no_folder(folder: Path, error: Exception) -> ConfigError:
    return ConfigError(f"{folder} is no folder of a fleet's keys ({error}): let this device join again")


@lru_cache(maxsize=2)  # all devices of a simulation have the same list, which is as long as they are many
def _load_members(folder: Path, stamps: tuple[tuple[int, int, int], ...]) -> tuple[Members, bytes]:
    """Load what `load_members` returns, anew when one of the files has changed."""
    try:
        fleet_key = read_fleet_key(folder)
        return read_members(fleet_key, (folder / MEMBERS).read_text(encoding="ascii")), fleet_key
    except VersionError as error:
        raise ConfigError(f"{folder / MEMBERS}: {error}") from error
    except (OSError, ValueError) as error:
        raise _no_folder(folder, error) from error


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
        return expanded(config.privacy.keys)
    return Path(config.out) / "keys"
