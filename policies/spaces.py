"""Public random subspaces of what a model takes in: a few coordinates stand for a context of many numbers.

Both sides draw the same directions from the same seed (compare intrinsic dimension, arXiv 1804.08838). Which subspace a
coordinate belongs to is the codec's choice; policies know only how to put such a context in place.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.experience import Vector


@dataclass(frozen=True, slots=True)
class PromptSpace:
    """Soft prompts: virtual tokens whose embeddings start from a real text and move within a random subspace.

    Parameters
    ----------
    seed
        Hexadecimal digits that name what the coordinates mean.
    start
        The text; its tokens are repeated to fill `virtual_tokens`.
    scale
        Length of a coordinate's direction, in mean lengths of the text's embeddings.
    """

    seed: str
    start: str
    virtual_tokens: int
    dimension: int
    scale: float

    def directions(self, hidden: int) -> NDArray[np.float32]:
        """Return unit directions that are nearly at right angles, shape ``(dimension, virtual_tokens, hidden)``."""
        drawn = directions(self.seed, self.dimension, self.virtual_tokens * hidden)
        return drawn.reshape(self.dimension, self.virtual_tokens, hidden)


@dataclass(frozen=True, slots=True)
class ResidualSpace:
    """Control vectors: one block of coordinates for each place in the residual stream at which a vector may be added.

    Parameters
    ----------
    seed
        Hexadecimal digits that name what the coordinates mean.
    depths
        The places, as shares of the layers that lie below; 1 is behind the last one.
    coordinates
        Of one block.
    scale
        Length of a coordinate's direction, in lengths of hidden states.
    """

    seed: str
    depths: tuple[float, ...]
    coordinates: int
    scale: float

    @property
    def dimension(self) -> int:
        """Coordinates of all blocks."""
        return self.coordinates * len(self.depths)

    def directions(self, hidden: int) -> NDArray[np.float32]:
        """Return random directions, each as long as `scale`, shape ``(len(depths), coordinates, hidden)``."""
        drawn = directions(self.seed, self.dimension, hidden)
        return self.scale * drawn.reshape(len(self.depths), self.coordinates, hidden)

    def layers(self, layers: int) -> tuple[int, ...]:
        """How many of a model's layers lie below each place."""
        return tuple(max(1, round(depth * layers)) for depth in self.depths)


@dataclass(frozen=True, slots=True, eq=False)
class SoftPrompt:
    """A context: coordinates of a soft prompt, shape ``(space.dimension,)``; zeros stand for the start text."""

    space: PromptSpace
    weights: Vector

    @property
    def key(self) -> bytes:
        """The same for the same context."""
        return self.space.seed.encode() + self.weights.tobytes()


@dataclass(frozen=True, slots=True, eq=False)
class ControlVector:
    """A context: coordinates of control vectors, shape ``(space.dimension,)``; zeros change nothing."""

    space: ResidualSpace
    weights: Vector

    @property
    def key(self) -> bytes:
        """The same for the same context."""
        return self.space.seed.encode() + self.weights.tobytes()


def directions(seed: str, dimension: int, size: int) -> NDArray[np.float32]:
    """Draw random unit directions, nearly at right angles, shape ``(dimension, size)``."""
    drawn = np.random.default_rng(int(seed, 16)).standard_normal((dimension, size), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn
