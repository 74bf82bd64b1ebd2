"""A strategy in 25 lines: only what most devices agree on is learned (after sign voting, arXiv 1810.05291).

fedoel simulate --set strategy.name=examples.agreement:Agreement --set strategy.options="share=0.7"
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedoel.protocol.experience import Aggregate, Contribution, total
from fedoel.strategies.experience import ExperienceStrategy


class Agreement(ExperienceStrategy):
    """Sum the vectors, and keep a coordinate if a `share` of those that have seen it push it in the same direction."""

    def __init__(self, *arguments: Any, share: float = 0.6, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.share = share

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Zero what is disputed; the Fisher diagonal stays that of the whole cohort."""
        whole = total(each.vector for each in contributions)
        signs = np.sign([each.vector.gradient for each in contributions])
        agreed = np.abs(signs.sum(axis=0)) >= (2 * self.share - 1) * np.abs(signs).sum(axis=0)
        return Aggregate(replace(whole, gradient=whole.gradient * agreed), len(contributions))
