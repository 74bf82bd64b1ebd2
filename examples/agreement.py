"""A strategy in 25 lines: majority vote on gradient signs (after signSGD with majority vote, arXiv 1810.05291).

fedoel simulate --set strategy.name=examples.agreement:Agreement --set strategy.options="share=0.7"
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fedoel.protocol.experience import Aggregate, Contribution, total
from fedoel.strategies.experience import ExperienceStrategy


class Agreement(ExperienceStrategy):
    """Sum the vectors; zero a coordinate unless a fraction `share` of its non-zero gradients has the same sign."""

    def __init__(self, *arguments: Any, share: float = 0.6, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.share = share

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum gradients where the vote is clear; the Fisher diagonal is the sum over the whole cohort."""
        summed = total(contribution.vector for contribution in contributions)
        signs_ND = np.sign([contribution.vector.gradient for contribution in contributions])
        agreed_D = np.abs(signs_ND.sum(axis=0)) >= (2 * self.share - 1) * np.abs(signs_ND).sum(axis=0)
        return Aggregate(replace(summed, gradient=summed.gradient * agreed_D), len(contributions))
