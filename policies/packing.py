"""Sequences of a packed batch, and which tokens of each attend to which; in numpy, for backends without torch, too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class PackedSequence:
    """One sequence of a packed batch. Its tokens attend to cached prefixes and to each other, to no other sequence.

    Parameters
    ----------
    length
        Number of tokens.
    positions
        Position of each token in its prompt, shape (length,).
    prefix_keys
        Indices of the cached keys that every token attends to.
    mask
        Which token attends to which within the sequence, shape (length, length).
    """

    length: int
    positions: NDArray[np.int64]
    prefix_keys: NDArray[np.int64]
    mask: NDArray[np.bool_]


def causal(length: int) -> NDArray[np.bool_]:
    """Causal mask: each token attends to itself and to those before it, shape (length, length)."""
    return np.tril(np.ones((length, length), dtype=bool))
