"""The folder of a device: the paths of its keys, its store, its versions, and what it was told by its fleet."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ...protocol.errors import ConfigError, EnrolmentError
from ...protocol.fleet.enrolment import Bundle, bundle_from_text
from ...protocol.fleet.membership import Membership, membership_at
from ..store import TrajectoryStore, key_from_file


class _Inside:
    """A path inside a device's folder."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __get__(self, folder: DeviceFolder, owner: type) -> Path:
        return folder.path / self.name


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    """Paths inside a device's folder.

    Parameters
    ----------
    path
        Absolute path of the folder.
    """

    path: Path

    settings = _Inside("device.toml")  # settings that the device's owner may change
    node_key = _Inside("keys/node.key")  # private key of the Flower node, in OpenSSH's format
    identity = _Inside("keys/identity.key")  # private Ed25519 key of the device, in hexadecimal
    authority = _Inside("ca.crt")  # certificates of the authorities that may have issued the server's
    fleet = _Inside("fleet")  # folder with the fleet's bundle, its public key, and the newest list of members
    bundle = _Inside("fleet/bundle.toml")
    store = _Inside("store.sqlite")  # the encrypted log of trajectories
    store_key = _Inside("keys/store.key")
    log_head = _Inside("keys/log.head")  # last head of the fleet's log that it has seen
    notice = _Inside("fleet/notice")  # newest notice of the fleet's owner
    game_key = _Inside("keys/games.key")  # secret from which the seeds of games and of play follow
    record = _Inside("contributions.sqlite")  # what it gave and refused; outlives runs and fleets
    versions = _Inside("versions")  # folder with the last two good versions
    played = _Inside("played.json")  # count of the games that were played today
    success = _Inside("success.json")  # how well the last two versions did on this device
    working = _Inside("working")  # folder of marks of processes at work, and of one that has died
    cache = _Inside("cache")
    flower = _Inside("flower")  # folder for everything that Flower writes
    node_config = _Inside("flower/node.toml")  # configuration of the Flower node
    runtime_secret = _Inside("flower/runtime.secret")  # by which the node knows the process that starts its tasks
    log = _Inside("supernode.log")
    process = _Inside("device.pid")  # locked by the device's service while it runs; holds its process id
    keys_lock = _Inside("join.lock")  # locked while `join` makes keys or takes in a bundle


def private_paths(folder: DeviceFolder) -> tuple[Path, ...]:
    """Return the folders and files to which nobody but their owner may have access, as far as they exist."""
    return (
        folder.path, folder.identity.parent, folder.flower, folder.node_key, folder.identity, folder.store_key,
        folder.store, folder.success, folder.game_key, folder.record,
    )  # fmt: skip


def joined(folder: DeviceFolder) -> Bundle:
    """Read the bundle of a device that has joined a fleet.

    Raises
    ------
    ConfigError
        If the device has not joined yet, or the bundle is damaged.
    """
    try:
        return bundle_from_text(folder.bundle.read_text(encoding="utf-8"), folder.authority.read_bytes())
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{folder.path} has not joined a fleet: run `fedoel device join` first") from error
    except EnrolmentError as error:
        raise ConfigError(f"{folder.bundle}: {error}") from error


def open_store(folder: DeviceFolder) -> TrajectoryStore:
    """Open the log of a device that has joined a fleet; raises as `joined` and `TrajectoryStore` do."""
    return TrajectoryStore(folder.store, f"client-{joined(folder).number}", key_from_file(folder.store_key))


def membership_of(folder: DeviceFolder) -> Membership:
    """Read this device's private key and its list of members; raises as `membership_at` does."""
    return replace(membership_at(folder.fleet, folder.identity), log_file=folder.log_head, notice_file=folder.notice)
