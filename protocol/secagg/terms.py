"""The terms of a round: fixed before it starts, and bound into every derived key, seal and signature.

Also the wire formats of sets of its positions (bitmaps), and of byte strings by position.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property

import numpy as np

from ..errors import SecureSumError
from .graph import Graph, count_picks

WIDTHS = (16, 32)
LARGEST = 2**16  # cohort


@dataclass(frozen=True)
class Terms:
    """The terms of one round.

    Parameters
    ----------
    run, number
        The round: random hexadecimal digits of the run, and a number that the run uses once.
    cohort
        Number of devices asked; each has an index from 0, its *position*.
    neighbours
        Number of devices that each device picks to hold shares of its secrets.
    threshold
        Number of shares that recover a seed, and of signatures that confirm a set of survivors.
    minimum
        Smallest number of survivors that is unmasked.
    cells, bits
        Number of integers in a vector, and their width: sums are taken modulo ``2**bits``.
    subject
        Digests of the vector's specification and of its privacy plan, and the exchange.

    Raises
    ------
    SecureSumError
        If values have the wrong type, are out of range or inconsistent.
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
        integers = (self.number, self.cohort, self.neighbours, self.threshold, self.minimum, self.cells, self.bits)
        if any(type(value) is not int or value < 0 for value in integers):
            raise SecureSumError("the terms of a secure sum contain a number that is no integer, or negative")
        if not (isinstance(self.run, str) and isinstance(self.subject, str) and self.run and self.subject):
            raise SecureSumError("the terms of a secure sum name no run or no subject")
        if self.cohort > LARGEST:
            raise SecureSumError(f"positions are numbers of two bytes: there cannot be {self.cohort} of them")
        if self.cohort < 3 or not 2 <= self.neighbours < self.cohort:
            raise SecureSumError(f"a secure sum needs 3 devices and 2 neighbours each, not {self.cohort}")
        if not 2 <= self.threshold <= self.neighbours or not 2 <= self.minimum <= self.cohort:
            raise SecureSumError("the threshold or the minimum of a secure sum is out of range")
        if not self.cells or self.bits not in WIDTHS:
            raise SecureSumError(f"a secure sum has cells of {WIDTHS} bits, not {self.cells} of {self.bits}")

    @cached_property
    def digest(self) -> bytes:
        """SHA-256 of these terms, 32 bytes."""
        return hashlib.sha256(self.to_json().encode()).digest()

    def to_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Terms:
        """Read what `to_json` wrote.

        Raises
        ------
        SecureSumError
            If the text is malformed, or the terms are inconsistent.
        """
        try:
            terms = cls(**json.loads(text))
        except (TypeError, ValueError, RecursionError) as error:
            raise SecureSumError("the terms of a secure sum cannot be read") from error
        if terms.to_json() != text:  # its digest is taken of what is written again
            raise SecureSumError("the terms of a secure sum are not written as this release writes them")
        return terms

    def check_position(self, position: int) -> None:
        """Raise `SecureSumError` if the cohort has no such position."""
        if not 0 <= position < self.cohort:
            raise SecureSumError(f"there is no position {position} in a cohort of {self.cohort}")

    def picked(self, others: int) -> int:
        """Return how many of so many other devices a device picks; raises `SecureSumError` if they are too few."""
        return count_picks(Graph(self.neighbours, self.threshold), self.cohort, others)


def bitmap_size(terms: Terms) -> int:
    """Return the number of bytes of a set of positions."""
    return (terms.cohort + 7) // 8


def to_bitmap(positions: Iterable[int], terms: Terms) -> bytes:
    """Return the bitmap of a set of positions, one bit for each device of the cohort."""
    bits = np.zeros(terms.cohort, dtype=np.uint8)
    bits[list(positions)] = 1
    return np.packbits(bits).tobytes()


def from_bitmap(data: bytes, terms: Terms) -> frozenset[int]:
    """Read what `to_bitmap` wrote.

    Raises
    ------
    SecureSumError
        If the size is wrong, or a position does not exist.
    """
    if len(data) != bitmap_size(terms):
        raise SecureSumError(f"a set of {terms.cohort} positions does not take {len(data)} bytes")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if bits[terms.cohort :].any():
        raise SecureSumError("a set of positions names one that does not exist")
    return frozenset(np.flatnonzero(bits).tolist())


def pack(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """Concatenate parts of equal size, each after its position in 2 bytes, in ascending order."""
    return b"".join(position.to_bytes(2, "big") + part for position, part in sorted(parts))


def unpack(data: bytes, size: int) -> dict[int, bytes]:
    """Read what `pack` wrote.

    Raises
    ------
    SecureSumError
        If the size is wrong, or a position occurs twice.
    """
    stride = size + 2
    if len(data) % stride:
        raise SecureSumError(f"{len(data)} bytes are no sequence of positions with parts of {size} bytes")
    pieces = [data[start : start + stride] for start in range(0, len(data), stride)]
    parts = {int.from_bytes(piece[:2], "big"): piece[2:] for piece in pieces}
    if len(parts) < len(pieces):
        raise SecureSumError("a position has two parts")
    return parts
