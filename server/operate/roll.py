"""The roll of a fleet: which devices have been enrolled, and which of them were removed again."""

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
    """A device of the fleet. Its number is its own for ever, since its games follow from it."""

    number: int
    name: str
    node_key: str
    identity: str
    revoked: bool = False


@dataclass(frozen=True, slots=True)
class Roll:
    """Every device that was ever enrolled, by number."""

    devices: tuple[Enrolled, ...] = ()

    @property
    def active(self) -> Sequence[Enrolled]:
        return [device for device in self.devices if not device.revoked]

    @property
    def identities(self) -> Sequence[bytes]:
        """Public keys of the members."""
        return [bytes.fromhex(device.identity) for device in self.active]

    def named(self, name: str) -> Enrolled:
        """Return the device that has a name now.

        Raises
        ------
        EnrolmentError
            If there is none.
        """
        found = [device for device in self.active if device.name == name]
        if not found:
            known = ", ".join(device.name for device in self.active) or "nobody yet"
            raise EnrolmentError(f"no device is called {name!r}; enrolled are: {known}")
        return found[0]

    def enrol(self, card: Card, name: str = "") -> tuple[Roll, Enrolled]:
        """Add a device, or find it again if it was added with the same keys.

        Parameters
        ----------
        name
            What the fleet calls it; by default what it calls itself.

        Raises
        ------
        EnrolmentError
            If the name or a key is another device's, or was removed from the fleet.
        """
        name = check_name(name or card.name)
        for device in self.devices:
            same = (device.node_key == card.node_key) + (device.identity == card.identity)
            if same == 2 and device.name == name and not device.revoked:
                return self, device
            if same:
                state = "was revoked" if device.revoked else f"belongs to {device.name!r}"
                raise EnrolmentError(f"a key of this device {state}: make new ones with `fedoel device join`")
            if device.name == name and not device.revoked:
                raise EnrolmentError(f"another device is called {name!r}: revoke it first, or choose another --name")
        added = Enrolled(len(self.devices), name, card.node_key, card.identity)
        return Roll((*self.devices, added)), added

    def revoke(self, name: str) -> Roll:
        """Remove a device for good; raises as `named` does."""
        gone = self.named(name)
        return Roll(tuple(replace(device, revoked=True) if device is gone else device for device in self.devices))


def read_roll(path: Path) -> Roll:
    """Read the roll; a fleet without one has no devices.

    Raises
    ------
    ConfigError
        If it is damaged.
    """
    if not path.exists():
        return Roll()
    try:
        return Roll(tuple(Enrolled(**entry) for entry in json.loads(path.read_bytes())))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"{path} cannot be read ({error}): put back a copy of it") from error


def write_roll(path: Path, roll: Roll) -> None:
    """Write what `read_roll` reads."""
    write_whole(path, json.dumps([asdict(device) for device in roll.devices], indent=1).encode())
