"""Trust what points where the server's own experience points: public games as a root of trust.

FLTrust (Cao et al. 2020, arXiv 2012.13995). A few public games do not tell what many devices know, but they tell a lie
that undoes it from the truth.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..protocol.errors import VectorError
from ..protocol.experience import Aggregate, Contribution
from .experience import ExperienceStrategy
from .norm_bounded import bounded
from .robust import cosine, rows_of, spread


class Trusted(ExperienceStrategy):
    """Bound every vector by the cohort's median norm, and weigh it by its cosine with the server's own gradient.

    What points the other way does not count. The server plays its public rehearsal games anyway, and learns from them
    as a device would. Public games must be like private ones for this, more than for anything else here.
    """

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Average by trust, on the scale of the cohort's sum."""
        own = self.consolidator.reference(*self.current).gradient
        vectors = [
            Contribution(each.node_id, v) for each, v in zip(contributions, bounded(contributions, 1.0), strict=True)
        ]
        trust = np.array([max(0.0, cosine(each.vector.gradient, own)) for each in vectors])
        if not trust.any():
            raise VectorError("no vector points where the server's own experience points")
        return spread(contributions, trust @ rows_of(vectors) / trust.sum())
