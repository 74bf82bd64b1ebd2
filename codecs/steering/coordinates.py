"""The coordinates of the steering codec: public random subspaces of the residual stream at three depths.

A context holds one block of coordinates per layer at which a control vector may be added. All blocks are estimated;
play then selects the block that the teacher keeps, and its strength.
"""

from __future__ import annotations

import hashlib

from ...policies.spaces import ResidualSpace

COORDINATES = 96  # per layer: with three layers and the counters, a vector stays under 4 KiB
DEPTHS = (0.8, 0.9, 1.0)
SCALE = 1 / 8  # the gradient of a few games then fits the clipping norms
VOCABULARY = hashlib.sha256(repr((COORDINATES, DEPTHS, SCALE, "steering", 2)).encode()).hexdigest()[:16]
SPACE = ResidualSpace(VOCABULARY, DEPTHS, COORDINATES, SCALE)
DIMENSION = SPACE.dimension


def blocks() -> dict[str, slice]:
    """Return the slice of each block's coordinates, by the name of its depth."""
    return {
        f"{depth:.0%} of the layers": slice(n * COORDINATES, (n + 1) * COORDINATES) for n, depth in enumerate(DEPTHS)
    }
