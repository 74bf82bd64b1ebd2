"""Wire formats of sets of positions (bitmaps) and of byte strings by position."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from ..errors import SecureSumError
from .terms import Terms


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
    if len(data) != (terms.cohort + 7) // 8:
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
