"""A public random subspace: a few coordinates stand for a vector of many, and both sides draw the same directions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def directions(vocabulary: str, dimension: int, size: int) -> NDArray[np.float32]:
    """Return random unit directions, nearly at right angles, shape ``(dimension, size)``.

    Parameters
    ----------
    vocabulary
        Hexadecimal digits that name what the coordinates mean; they are the seed.
    """
    drawn = np.random.default_rng(int(vocabulary, 16)).standard_normal((dimension, size), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn
