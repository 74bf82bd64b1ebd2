"""What the coordinates of the prefix codec mean: a public random subspace of a soft prompt.

A soft prompt is a row of virtual tokens whose embeddings are free. Here they start from a real text and move within a
random subspace of few dimensions, so that a vector stays small (compare intrinsic dimension, arXiv 1804.08838). Both
sides draw the same subspace from the same seed.
"""

from __future__ import annotations

import hashlib
import math

import numpy as np
from numpy.typing import NDArray

from . import subspace

VIRTUAL_TOKENS = 12
DIMENSION = 256
START = "Advice from earlier games: pay attention to what is new here, and to the goal.\n"
SCALE = 1.0  # of a coordinate, in lengths of the text's own embeddings
# Norm of the longest context. Tokens that move by more than 0.6 of their length, on average, end as noise, which the
# model overlooks: KL to the bare text falls again, and with it every gradient.
RADIUS = 0.6 * math.sqrt(VIRTUAL_TOKENS) / SCALE
VOCABULARY = hashlib.sha256(repr((VIRTUAL_TOKENS, DIMENSION, START, SCALE, 1)).encode()).hexdigest()[:16]


def directions(hidden: int) -> NDArray[np.float32]:
    """Return unit directions that are nearly at right angles, shape ``(DIMENSION, VIRTUAL_TOKENS, hidden)``."""
    drawn = subspace.directions(VOCABULARY, DIMENSION, VIRTUAL_TOKENS * hidden)
    return drawn.reshape(DIMENSION, VIRTUAL_TOKENS, hidden)
