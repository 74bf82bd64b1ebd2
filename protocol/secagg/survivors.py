"""Sets of positions as bit maps: a position is in a set or not, so that no device can be both there and gone."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import SecureSumError
from .terms import Terms


def to_bitmap(positions: Iterable[int], terms: Terms) -> bytes:
    """Write a set of positions, one bit for each device that was asked."""
    bits = np.zeros(terms.cohort, dtype=np.uint8)
    bits[list(positions)] = 1
    return np.packbits(bits).tobytes()


def from_bitmap(data: bytes, terms: Terms) -> frozenset[int]:
    """Read what `to_bitmap` wrote.

    Raises
    ------
    SecureSumError
        If it is of another size, or names positions that do not exist.
    """
    if len(data) != (terms.cohort + 7) // 8:
        raise SecureSumError(f"a set of {terms.cohort} positions does not take {len(data)} bytes")
    bits = np.unpackbits(np.frombuffer(data, dtype=np.uint8))
    if bits[terms.cohort :].any():
        raise SecureSumError("a set of positions names one that does not exist")
    return frozenset(np.flatnonzero(bits).tolist())


def pack(parts: Iterable[tuple[int, bytes]]) -> bytes:
    """Write numbered parts of one size, one after the other."""
    return b"".join(position.to_bytes(2, "big") + part for position, part in sorted(parts))


def unpack(data: bytes, size: int) -> dict[int, bytes]:
    """Read what `pack` wrote.

    Raises
    ------
    SecureSumError
        If sizes do not fit, or a number stands there twice.
    """
    step = size + 2
    if len(data) % step:
        raise SecureSumError(f"numbered parts of {size} bytes do not fill {len(data)}")
    pieces = [data[start : start + step] for start in range(0, len(data), step)]
    parts = {int.from_bytes(piece[:2], "big"): piece[2:] for piece in pieces}
    if len(parts) < len(pieces):
        raise SecureSumError("a position has two parts")
    return parts
