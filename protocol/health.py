"""Health of a fleet: what a device says about itself in a trial, as counts that add up to rates by class of device.

A device is in one class, by the memory of its machine, and its counts are ones and zeros in the block of that class:

    answers, died, behind, time per turn by bucket, peak memory by bucket

Classes and buckets are public and few. At most `MOST` of a device's counts are one, so that they take a fixed share of
the clipping norm of the answer that they are a part of (`fedoel.protocol.trials`).
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .experience import Floats


@dataclass(frozen=True, slots=True)
class Scale:
    """Public buckets of a number: below the first bound, from one bound to the next, and from the last one on."""

    unit: str
    bounds: tuple[float, ...]

    @property
    def names(self) -> tuple[str, ...]:
        """What each bucket is called, e.g. ``3 to 12 GB``."""
        first, *_, last = self.bounds
        between = (f"{low:g} to {high:g} {self.unit}" for low, high in pairwise(self.bounds))
        return f"below {first:g} {self.unit}", *between, f"{last:g} {self.unit} or more"

    def counts(self, value: float | None) -> list[float]:
        """Return one for the bucket of a value and zero for all others; zeros for None."""
        bucket = -1 if value is None else bisect_right(self.bounds, value)
        return [float(number == bucket) for number in range(len(self.bounds) + 1)]


MACHINE = Scale("GB", (3.0, 12.0))  # between the usual sizes: a machine of 4 GB has a little less, or more, to offer
PACE = Scale("s", (0.1, 1.0, 10.0))
PEAK = Scale("MB", (300.0, 600.0, 1200.0))  # 600 and 1200 are the limits of a device's service
FLAGS = 3  # answers, died, behind
COLUMNS = FLAGS + len(PACE.names) + len(PEAK.names)
SHAPE = len(MACHINE.names), COLUMNS
CELLS = len(MACHINE.names) * COLUMNS
MOST = FLAGS + 2


@dataclass(frozen=True, slots=True)
class Health:
    """How a device is.

    Parameters
    ----------
    machine
        Memory of the machine, gigabytes.
    died
        Whether one of its processes died since the last cycle in which it said so.
    behind
        Whether it has another version for its owner than the current one, or none.
    pace
        Seconds per turn of what it has played for the trial; None if it had been played before.
    peak
        Largest memory of the process that has played, megabytes; None if the system does not tell.
    """

    machine: float
    died: bool
    behind: bool
    pace: float | None
    peak: float | None

    def counts(self) -> Floats:
        """Return the device's counts, shape `SHAPE`."""
        row = [1.0, float(self.died), float(self.behind), *PACE.counts(self.pace), *PEAK.counts(self.peak)]
        return np.outer(MACHINE.counts(self.machine), row)
