"""Public random subspaces of soft prompts and of the residual stream, in which contexts have few coordinates.

Device and server draw the same directions from the same seed (compare intrinsic dimension, arXiv 1804.08838). Codecs
choose the subspace; policies apply a context in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from ..protocol.experience import Vector


@dataclass(frozen=True, slots=True)
class PromptSpace:
    """Soft prompts whose embeddings are those of a real text plus a vector in a random subspace.

    Parameters
    ----------
    seed
        Hexadecimal digits, from which the directions are drawn.
    start
        The text; its tokens are repeated to fill `virtual_tokens`.
    dimension
        Number of coordinates.
    scale
        Norm of a coordinate's direction, as a multiple of the mean norm of the text's embeddings.
    """

    seed: str
    start: str
    virtual_tokens: int
    dimension: int
    scale: float

    def directions(self, hidden: int) -> NDArray[np.float32]:
        """Return nearly orthogonal unit directions, shape ``(dimension, virtual_tokens, hidden)``."""
        drawn = directions(self.seed, self.dimension, self.virtual_tokens * hidden)
        return drawn.reshape(self.dimension, self.virtual_tokens, hidden)


@dataclass(frozen=True, slots=True)
class ResidualSpace:
    """Control vectors in random subspaces: one block of coordinates per depth at which a vector may be added.

    Parameters
    ----------
    seed
        Hexadecimal digits, from which the directions are drawn.
    depths
        Where vectors are added, as the share of the layers that lie below; 1 is behind the last layer.
    coordinates
        Number of coordinates of one block.
    scale
        Norm of a coordinate's direction, as a multiple of the norm of the hidden state.
    """

    seed: str
    depths: tuple[float, ...]
    coordinates: int
    scale: float

    @property
    def dimension(self) -> int:
        """Number of coordinates of all blocks."""
        return self.coordinates * len(self.depths)

    def directions(self, hidden: int) -> NDArray[np.float32]:
        """Return random directions of norm `scale`, shape ``(len(depths), coordinates, hidden)``."""
        drawn = directions(self.seed, self.dimension, hidden)
        return self.scale * drawn.reshape(len(self.depths), self.coordinates, hidden)

    def layers(self, layers: int) -> tuple[int, ...]:
        """Number of a model's layers below each depth; at least 1."""
        return tuple(max(1, round(depth * layers)) for depth in self.depths)


Space = TypeVar("Space", PromptSpace, ResidualSpace)


@dataclass(frozen=True, slots=True, eq=False)
class Coordinates(Generic[Space]):
    """A context as coordinates in a subspace, shape ``(space.dimension,)``."""

    space: Space
    weights: Vector

    @property
    def key(self) -> bytes:
        """Equal for equal contexts."""
        return self.space.seed.encode() + self.weights.tobytes()


class SoftPrompt(Coordinates[PromptSpace]):
    """A context as coordinates of a soft prompt; zeros give the start text."""


class ControlVector(Coordinates[ResidualSpace]):
    """A context as coordinates of control vectors; zeros change nothing."""


def directions(seed: str, dimension: int, size: int) -> NDArray[np.float32]:
    """Draw random unit directions, nearly orthogonal in high dimensions, shape ``(dimension, size)``."""
    drawn = np.random.default_rng(int(seed, 16)).standard_normal((dimension, size), dtype=np.float32)
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    return drawn
