"""A staged rollout: a promoted version goes to a share of the fleet first, then to a larger one, and to all at the end.

Who is in a stage follows from a hash of the version and the device. So every version begins with other devices, and
each stage of a version has all devices of the stage before.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from itertools import pairwise

from .errors import ConfigError
from .settings import shown

ALL = 1.0


def stages_of(text: str) -> tuple[float, ...]:
    """Read the shares of the fleet that stages have, e.g. ``0.01 0.1 1``.

    Raises
    ------
    ConfigError
        If they are no numbers that increase from above 0 to 1.
    """
    try:
        stages = tuple(float(word) for word in text.split())
    except ValueError:
        stages = ()
    if not stages or stages[-1] != ALL or not all(before < after for before, after in pairwise((0.0, *stages))):
        raise ConfigError(
            f"rollout.stages must be shares that increase to 1, separated by spaces, such as '0.01 0.1 1', not "
            f"{shown(text)}"
        )
    return stages


def reached(devices: Sequence[int], version: str, share: float, least: int) -> list[int]:
    """Return the devices that a version has reached, in their order.

    Parameters
    ----------
    devices
        Numbers that name the devices that are there.
    share
        Share of the fleet that it goes to. A device is in it whoever else is there.
    least
        Fewest devices: where the share is smaller, those that larger shares begin with are added.
    """
    if share >= ALL:
        return list(devices)
    draws = {device: draw(version, device) for device in devices}
    first = set(sorted(devices, key=lambda device: (draws[device], device))[:least])
    return [device for device in devices if draws[device] < share or device in first]


def draw(version: str, device: int) -> float:
    """Return the number in [0, 1) that decides when a version reaches a device."""
    digest = hashlib.sha256(f"fedoel rollout\0{version}\0{device}".encode()).digest()
    return int.from_bytes(digest[:6], "big") / 2**48
