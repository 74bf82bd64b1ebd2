"""The roll of a fleet: all devices that were ever enrolled, including those revoked since."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from ...protocol.errors import ConfigError, EnrolmentError
from ...protocol.fleet.enrolment import Card, check_name
from ...protocol.host.files import write_whole


@dataclass(frozen=True, slots=True)
class Enrolled:
    """An enrolled device. Its number is never reused, because it determines the device's games."""

    number: int
    name: str
    node_key: str
    identity: str
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Roll:
    """All devices that were ever enrolled, ordered by number."""

    devices: tuple[Enrolled, ...] = ()

    @property
    def active(self) -> Sequence[Enrolled]:
        return [device for device in self.devices if not device.revoked]

    @property
    def identities(self) -> Sequence[bytes]:
        """Public keys of the members."""
        return [bytes.fromhex(device.identity) for device in self.active]

    def named(self, name: str) -> Enrolled:
        """Return the active device with a name.

        Raises
        ------
        EnrolmentError
            If there is none.
        """
        matches = [device for device in self.active if device.name == name]
        if not matches:
            enrolled = ", ".join(device.name for device in self.active) or "none yet"
            raise EnrolmentError(f"no device is called {name!r}; enrolled are: {enrolled}")
        return matches[0]

    def enrol(self, card: Card, name: str = "") -> tuple[Roll, Enrolled]:
        """Enrol a device; return the extended roll and the device. Enrolling it twice changes nothing.

        Parameters
        ----------
        name
            Name of the device in the fleet; by default the name on its card.

        Raises
        ------
        EnrolmentError
            If the name or a key belongs to another device, or a key to a revoked one.
        """
        name = check_name(name or card.name)
        for device in self.devices:
            shared_keys = (device.node_key == card.node_key) + (device.identity == card.identity)
            if shared_keys == 2 and device.name == name and not device.revoked:
                return self, device
            if shared_keys:
                state = "was revoked" if device.revoked else f"belongs to {device.name!r}"
                raise EnrolmentError(f"a key of this device {state}: make new ones with `fedoel device join`")
            if device.name == name and not device.revoked:
                raise EnrolmentError(f"another device is called {name!r}: revoke it first, or choose another --name")
        added = Enrolled(len(self.devices), name, card.node_key, card.identity)
        return Roll((*self.devices, added)), added

    def revoke(self, name: str) -> Roll:
        """Mark a device as revoked, permanently; raises as `named` does. Revoking it twice changes nothing."""
        if [device.revoked for device in self.devices if device.name == name][-1:] == [True]:
            return self
        target = self.named(name)
        return Roll(tuple(replace(device, revoked=True) if device is target else device for device in self.devices))


def devices(count: int) -> str:
    """Return a number of devices in words, as ``1 device``."""
    return f"{count} {'device' if count == 1 else 'devices'}"


def read_roll(path: Path) -> Roll:
    """Read the roll from a file; an empty roll if there is none.

    Raises
    ------
    ConfigError
        If the file is damaged.
    """
    if not path.exists():
        return Roll()
    try:
        return Roll(tuple(Enrolled(**entry) for entry in json.loads(path.read_bytes())))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): put back a copy of it") from error


def write_roll(path: Path, roll: Roll) -> None:
    """Write the roll to a file."""
    write_whole(path, json.dumps([asdict(device) for device in roll.devices], indent=1).encode())
