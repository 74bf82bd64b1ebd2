"""Norm bounding (Sun et al. 2019, arXiv 1911.07963), with a bound that follows the cohort's median norm."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, clip, total
from .experience import ExperienceStrategy


class NormBounded(ExperienceStrategy):
    """Clip every vector to a multiple of the cohort's median norm, and sum.

    The clipping norms that devices apply are fixed for all games, and most vectors are far below them. The median norm
    adapts to what honest devices send.

    Parameters
    ----------
    norm_bound
        Largest norm of gradient and Fisher diagonal, as a multiple of the cohort's median norms.
    """

    def __init__(self, *arguments: Any, norm_bound: float = 1.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if not norm_bound > 0:
            raise ConfigError(f"norm-bound must be more than zero, not {norm_bound}")
        self.norm_bound = norm_bound

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Clip gradients and Fisher diagonals, and sum."""
        return Aggregate(total(clipped_to_norm(contributions, self.norm_bound)), len(contributions))


def clipped_to_norm(contributions: Sequence[Contribution], norm_bound: float) -> list[ExperienceVector]:
    """Clip gradients and Fisher diagonals to `norm_bound` times the cohort's median norm of each."""
    vectors = [contribution.vector for contribution in contributions]
    gradient_bound, fisher_bound = (
        norm_bound * float(np.median([np.linalg.norm(part) for part in parts]))
        for parts in ([v.gradient for v in vectors], [v.fisher for v in vectors])
    )
    return [replace(v, gradient=clip(v.gradient, gradient_bound), fisher=clip(v.fisher, fisher_bound)) for v in vectors]
