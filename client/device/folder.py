"""The folder of a device: the paths of its keys, its store, its versions, and what it was told by its fleet."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ...protocol.errors import ConfigError, EnrolmentError
from ...protocol.fleet.enrolment import Bundle, bundle_from_text
from ...protocol.fleet.membership import Membership, membership_at


@dataclass(frozen=True, slots=True)
class DeviceFolder:
    """Paths inside a device's folder.

    Parameters
    ----------
    path
        Absolute path of the folder.
    """

    path: Path

    @property
    def settings(self) -> Path:
        """Settings that the device's owner may change."""
        return self.path / "device.toml"

    @property
    def node_key(self) -> Path:
        """Private key of the Flower node, in OpenSSH's format."""
        return self.path / "keys" / "node.key"

    @property
    def identity(self) -> Path:
        """Private Ed25519 key of the device, in hexadecimal."""
        return self.path / "keys" / "identity.key"

    @property
    def authority(self) -> Path:
        """Certificate of the authority that has issued the server's certificate."""
        return self.path / "ca.crt"

    @property
    def fleet(self) -> Path:
        """Folder with the fleet's bundle, its public key, and the newest list of members."""
        return self.path / "fleet"

    @property
    def bundle(self) -> Path:
        return self.fleet / "bundle.toml"

    @property
    def store(self) -> Path:
        """The encrypted log of trajectories."""
        return self.path / "store.sqlite"

    @property
    def store_key(self) -> Path:
        return self.path / "keys" / "store.key"

    @property
    def versions(self) -> Path:
        """Folder with the last two good versions."""
        return self.path / "versions"

    @property
    def played(self) -> Path:
        """Count of the games that were played today."""
        return self.path / "played.json"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def flower(self) -> Path:
        """Folder for everything that Flower writes."""
        return self.path / "flower"

    @property
    def log(self) -> Path:
        return self.path / "supernode.log"

    @property
    def process(self) -> Path:
        """Process id of the device's service, while it runs."""
        return self.path / "device.pid"


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


def membership_of(folder: DeviceFolder) -> Membership:
    """Read this device's private key and its list of members; raises as `membership_at` does."""
    return membership_at(folder.fleet, folder.identity)
