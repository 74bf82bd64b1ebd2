"""What the coordinates of the steering codec mean: public random subspaces of the residual stream at three layers.

A context holds one block of coordinates for each layer at which a control vector may be added. All blocks are learned;
which of them a teacher has, and how strongly, is decided by play.
"""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from . import subspace

COORDINATES = 96  # of one layer: with three of them and the counters, a vector stays under 4 KiB
DEPTHS = (0.8, 0.9, 1.0)  # of the layers, as shares of all; 1 is behind the last one
DIMENSION = COORDINATES * len(DEPTHS)
SCALE = 1 / 8  # of a coordinate, in lengths of hidden states: the sums of some games then fit the clipping norms
VOCABULARY = hashlib.sha256(repr((COORDINATES, DEPTHS, SCALE, "steering", 2)).encode()).hexdigest()[:16]


def directions(hidden: int) -> NDArray[np.float32]:
    """Return random directions, each as long as `SCALE`, shape ``(len(DEPTHS), COORDINATES, hidden)``."""
    return SCALE * subspace.directions(VOCABULARY, DIMENSION, hidden).reshape(len(DEPTHS), COORDINATES, hidden)


def layers_of(layers: int) -> tuple[int, ...]:
    """How many layers lie below each place where a control vector may be added."""
    return tuple(max(1, round(depth * layers)) for depth in DEPTHS)


def parts() -> dict[str, slice]:
    """Return where each block's coordinates lie, by the name of its place."""
    return {
        f"{depth:.0%} of the layers": slice(n * COORDINATES, (n + 1) * COORDINATES) for n, depth in enumerate(DEPTHS)
    }
