"""What the coordinates of the steering codec mean: public random subspaces of the residual stream at three layers.

A context holds one block of coordinates for each layer at which a control vector may be added. All blocks are learned;
which of them a teacher has, and how strongly, is decided by play.
"""

from __future__ import annotations

import hashlib

from ...policies.spaces import ResidualSpace

COORDINATES = 96  # of one layer: with three of them and the counters, a vector stays under 4 KiB
DEPTHS = (0.8, 0.9, 1.0)
SCALE = 1 / 8  # the sums of some games then fit the clipping norms
VOCABULARY = hashlib.sha256(repr((COORDINATES, DEPTHS, SCALE, "steering", 2)).encode()).hexdigest()[:16]
SPACE = ResidualSpace(VOCABULARY, DEPTHS, COORDINATES, SCALE)
DIMENSION = SPACE.dimension


def parts() -> dict[str, slice]:
    """Return where each block's coordinates lie, by the name of its place."""
    return {
        f"{depth:.0%} of the layers": slice(n * COORDINATES, (n + 1) * COORDINATES) for n, depth in enumerate(DEPTHS)
    }
