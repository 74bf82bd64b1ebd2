"""The coordinates of the codec `embedding`: whitened differences between the embeddings of a situation's commands.

    phi(x, a) = z(x, a) - mean over the alternatives b of z(x, b)
      z(x, a) = s W^T (h(x, a) - h(x, m)), shortened to a length of 3

h(x, a) is the embedding of command a behind the prompt of x (`fedoel.policies.abilities.Embedding`). The columns of W
are the leading principal directions of centred embeddings over public situations, divided by their standard
deviations: over these situations, the coordinates are uncorrelated and of equal variance, so that the Fisher matrix of
a uniform policy is diagonal. The scale s makes the mean of |phi|^2 one, whatever the number of coordinates.

m is the alternative in the middle: the one from which the others are nearest. Admissible commands are rarely 3 away
from it. What a policy writes may be no command at all; phi of such an answer would be five times as long as theirs, and
outweigh them in every sum and in the trust region.

W is computed once by the server, before the first cycle, and travels with every request.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...protocol.errors import VectorError

Embeddings = NDArray[np.float32]
FARTHEST = 3.0  # from the alternative in the middle; the root mean square length of phi is one
FLOOR = 1e-6  # of the largest variance: a direction below it holds rounding errors


@dataclass(frozen=True, eq=False)
class Whitening:
    """The matrix s W, float16 of shape ``(hidden, dimension)``: device and server compute with the same rounded one.

    Raises
    ------
    VectorError
        If the matrix has another type or shape, or is not finite.
    """

    matrix: NDArray[Any]
    dimension: int

    def __post_init__(self) -> None:
        matrix = self.matrix
        if matrix.ndim != 2 or matrix.shape[1] != self.dimension or matrix.dtype != np.float16:
            raise VectorError(
                f"a whitening matrix must be float16 with {self.dimension} columns, not {matrix.dtype} of "
                f"{matrix.shape}"
            )
        if not np.isfinite(matrix).all():
            raise VectorError("a whitening matrix contains numbers that are not finite")

    @classmethod
    def fit(cls, embeddings: Sequence[Embeddings], dimension: int) -> Whitening:
        """Compute the matrix of public situations.

        Parameters
        ----------
        embeddings
            Embeddings of the commands of each situation, shapes ``(A, hidden)``.
            If they span fewer directions than `dimension`, the last columns are zero, and so are their coordinates.
        """
        centred = np.concatenate([_centred(h) for h in embeddings]).astype(np.float64)
        variances, directions = np.linalg.eigh(centred.T @ centred / len(centred))
        kept = np.argsort(-variances)[:dimension][: int((variances > FLOOR * variances[-1]).sum())]
        directions = directions[:, kept] / np.sqrt(dimension * variances[kept])
        # An eigenvector's sign is arbitrary: its largest entry becomes positive, so that every machine agrees.
        largest = np.abs(directions).argmax(axis=0)
        matrix = np.zeros((len(directions), dimension), np.float16)
        matrix[:, : len(kept)] = directions * np.sign(directions[largest, np.arange(len(kept))])
        return cls(matrix, dimension)

    @cached_property
    def digest(self) -> str:
        """Hash of the matrix, which names it."""
        return hashlib.sha256(self.matrix.tobytes()).hexdigest()[:16]

    @cached_property
    def _wide(self) -> NDArray[np.float32]:
        return self.matrix.astype(np.float32)

    def features(self, embeddings: Embeddings) -> NDArray[np.float32]:
        """Return phi of a situation's commands, shape ``(A, dimension)``, from their embeddings.

        Raises
        ------
        VectorError
            If the model's hidden states have another size than the matrix.
        """
        if embeddings.shape[1] != len(self.matrix):
            raise VectorError(
                f"a whitening matrix for hidden states of size {len(self.matrix)} does not fit a model with "
                f"{embeddings.shape[1]}"
            )
        # Centred first, since the products of whole embeddings would round off what differs.
        features: NDArray[np.float32] = np.matmul(_centred(embeddings), self._wide, dtype=np.float32)
        distances_AA = np.linalg.norm(features[:, None] - features, axis=-1)
        middle = distances_AA.sum(axis=0).argmin()
        if distances_AA[middle].max() <= FARTHEST:
            return features
        shortened = FARTHEST / np.maximum(distances_AA[middle], FARTHEST)
        return _centred((features - features[middle]) * shortened[:, None].astype(np.float32))


def _centred(embeddings: Embeddings) -> Embeddings:
    centred: Embeddings = embeddings - embeddings.mean(axis=0)
    return centred
