"""Trust what points where the server's own experience points: public games as a root of trust.

FLTrust (Cao et al. 2020, arXiv 2012.13995). A few public games do not tell what many devices know, but they tell a lie
that undoes it from the truth.
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
from .norm_bounded import clipped_to_norm
from .robust import Rows, check_share, cosine, rows_of, spread, trimmed_mean


class Trusted(ExperienceStrategy):
    """Bound every vector by the cohort's median norm, and weigh it by its cosine with the server's own gradient.

    What points the other way does not count. The server plays its public rehearsal games anyway, and learns from them
    as a device would. Public games must be like private ones for this, more than for anything else here.
    """

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Average by trust, on the scale of the cohort's sum."""
        rows, trust = self._trusted(contributions)
        return spread(contributions, trust @ rows / trust.sum())

    def _trusted(self, contributions: Sequence[Contribution]) -> tuple[Rows, NDArray[np.float64]]:
        """Rows of bounded vectors, and how far each is trusted, at least one of them."""
        own = self.server.rounds.reference(*self.current).gradient
        inside = within_median(contributions)
        trust = trust_in([each.vector for each in inside], own)
        if not trust.any():
            raise VectorError("no vector points where the server's own experience points")
        return rows_of(inside), trust


class TrustedTrimmed(Trusted):
    """Leave out what points away from the server's own gradient; all others count alike, without the tails.

    Weights by trust cost what devices with rare games know; a trimmed mean alone is moved by many who lie alike. Each
    makes up for what the other misses.

    Parameters
    ----------
    beta
        Fraction of those that are left to cut off of both tails of each coordinate, in the range ``[0, 0.5)``.
    """

    def __init__(self, *arguments: Any, beta: float = 0.2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_share("beta", beta, 0.5)
        self.beta = beta

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Trim and average what is trusted, on the scale of the cohort's sum."""
        rows, trust = self._trusted(contributions)
        return spread(contributions, trimmed_mean(rows[trust > 0], self.beta))


def within_median(contributions: Sequence[Contribution]) -> list[Contribution]:
    """Clip gradients and Fisher diagonals to the median norms of all of them."""
    clipped = zip(contributions, clipped_to_norm(contributions, 1.0), strict=True)
    return [replace(each, vector=vector) for each, vector in clipped]


def trust_in(vectors: Sequence[ExperienceVector], own: Vector) -> NDArray[np.float64]:
    """Cosine of each gradient with the server's own; 0 for those that point the other way."""
    return np.array([max(0.0, cosine(vector.gradient, own)) for vector in vectors])
