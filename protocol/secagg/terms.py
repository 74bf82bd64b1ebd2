"""What a round of the secure sum is about: agreed before it starts, and bound into every key, seal and signature."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from ..errors import SecureSumError

WIDTHS = (16, 32)


@dataclass(frozen=True, slots=True)
class Terms:
    """The terms of one round.

    Parameters
    ----------
    run, number
        Which round of which run: hexadecimal digits drawn at random for the run, and a number that is used once.
    cohort
        Devices that are asked, numbered from 0: their *positions*.
    neighbours
        Devices that each device is paired with.
    threshold
        Shares that recover a secret, and signatures that confirm a set of survivors.
    minimum
        Survivors below which nothing is unmasked.
    cells, bits
        Numbers in a vector, and their width: sums are taken modulo ``2**bits``.
    subject
        Digest of what is summed: the vector's specification and its privacy plan.
    """

    run: str
    number: int
    cohort: int
    neighbours: int
    threshold: int
    minimum: int
    cells: int
    bits: int
    subject: str

    def __post_init__(self) -> None:
        whole = (self.number, self.cohort, self.neighbours, self.threshold, self.minimum, self.cells, self.bits)
        if any(type(value) is not int or value < 0 for value in whole):
            raise SecureSumError("the terms of a secure sum hold a number that is not whole, or negative")
        if not (isinstance(self.run, str) and isinstance(self.subject, str) and self.run and self.subject):
            raise SecureSumError("the terms of a secure sum name no run or no subject")
        if self.cohort < 3 or not 2 <= self.neighbours < self.cohort:
            raise SecureSumError(f"a secure sum needs 3 devices and 2 neighbours each, not {self.cohort}")
        if self.neighbours < self.cohort - 1 and self.neighbours % 2:
            raise SecureSumError(f"{self.neighbours} neighbours do not lie evenly on both sides")
        if not 2 <= self.threshold <= self.neighbours or not 2 <= self.minimum <= self.cohort:
            raise SecureSumError("the threshold or the minimum of a secure sum is out of range")
        if not self.cells or self.bits not in WIDTHS:
            raise SecureSumError(f"a secure sum has cells of {WIDTHS} bits, not {self.cells} of {self.bits}")

    @property
    def digest(self) -> bytes:
        """32 bytes that stand for these terms."""
        return hashlib.sha256(self.to_json().encode()).digest()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Terms:
        """Read what `to_json` wrote.

        Raises
        ------
        SecureSumError
            If it is something else, or the terms contradict each other.
        """
        try:
            return cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise SecureSumError("the terms of a secure sum cannot be read") from error

    def neighbours_of(self, position: int) -> tuple[int, ...]:
        """Positions that a device is paired with, ascending: the nearest on a ring, half on each side.

        The server puts devices onto the ring in random order, which makes this the random graph of Bell et al. 2020.
        """
        if not 0 <= position < self.cohort:
            raise SecureSumError(f"there is no position {position} in a cohort of {self.cohort}")
        if self.neighbours == self.cohort - 1:
            return tuple(other for other in range(self.cohort) if other != position)
        half = self.neighbours // 2
        steps = [step for step in range(-half, half + 1) if step]
        return tuple(sorted((position + step) % self.cohort for step in steps))
