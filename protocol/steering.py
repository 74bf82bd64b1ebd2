"""What the coordinates of the steering codec mean: a public random subspace of the residual stream at one layer."""

from __future__ import annotations

import hashlib

import numpy as np
from numpy.typing import NDArray

from . import subspace

DIMENSION = 256
DEPTH = 0.6  # of the layer, as a share of all layers
VOCABULARY = hashlib.sha256(repr((DIMENSION, DEPTH, "steering", 1)).encode()).hexdigest()[:16]


def directions(hidden: int) -> NDArray[np.float32]:
    """Return random unit directions, shape ``(DIMENSION, hidden)``."""
    return subspace.directions(VOCABULARY, DIMENSION, hidden)


def layer_of(layers: int) -> int:
    """How many layers lie below the place where a control vector is added."""
    return max(1, min(layers - 1, round(DEPTH * layers)))
