"""FLTrust (Cao et al. 2020, arXiv 2012.13995), with the server's public games as the root of trust.

The server's gradient estimate from a few public games lacks much of what the devices have learned, but its direction
separates honest gradients from reversed ones.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import VectorError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, Vector
from .experience import ExperienceStrategy
from .robust import Rows, check_fraction, clipped_to_norm, cosine, rows_of, scaled_to_sum, trimmed_mean


class Trusted(ExperienceStrategy):
    """Clip every vector to the cohort's median norm, and weight it by its trust score.

    The trust score is the cosine similarity of a gradient with the server's own, or zero where that is negative. The
    server's gradient comes from the public rehearsal games, which it plays in any case. This strategy assumes that
    public games resemble private ones.
    """

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Average the clipped vectors with their trust scores as weights, and scale to the cohort's sum."""
        rows, trust = self._trusted(contributions)
        return scaled_to_sum(contributions, trust @ rows / trust.sum())

    def _trusted(self, contributions: Sequence[Contribution]) -> tuple[Rows, NDArray[np.float64]]:
        """Return clipped vectors as rows, and their trust scores, at least one of which is positive."""
        reference = self.server.reference(*self.current).gradient
        clipped = within_median(contributions)
        trust = trust_scores([contribution.vector for contribution in clipped], reference)
        if not trust.any():
            raise VectorError("no vector has a positive cosine with the server's own gradient")
        return rows_of(clipped), trust


class TrustedTrimmed(Trusted):
    """Exclude vectors without a positive trust score, and take the trimmed mean of the others.

    Weights by trust suppress what devices with rare games have learned; a trimmed mean alone can be moved by many
    colluding devices. Exclusion by trust followed by an unweighted trimmed mean avoids both.

    Parameters
    ----------
    beta
        Fraction of the remaining vectors to cut off of both tails of each coordinate, in the range ``[0, 0.5)``.
    """

    def __init__(self, *arguments: Any, beta: float = 0.2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta", beta, 0.5)
        self.beta = beta

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Take the trimmed mean of the trusted vectors, and scale it to the cohort's sum."""
        rows, trust = self._trusted(contributions)
        return scaled_to_sum(contributions, trimmed_mean(rows[trust > 0], self.beta))


def within_median(contributions: Sequence[Contribution]) -> list[Contribution]:
    """Clip gradients and Fisher diagonals to their median norms."""
    clipped = zip(contributions, clipped_to_norm(contributions, 1.0), strict=True)
    return [replace(contribution, vector=vector) for contribution, vector in clipped]


def trust_scores(vectors: Sequence[ExperienceVector], reference: Vector) -> NDArray[np.float64]:
    """Return ``max(0, cos(gradient, reference))`` for each vector."""
    return np.array([max(0.0, cosine(vector.gradient, reference)) for vector in vectors])
