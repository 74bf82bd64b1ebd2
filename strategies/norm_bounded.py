"""The sum of vectors none of which is longer than most: who shouts is as loud as the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, clip, total
from .experience import ExperienceStrategy


class NormBounded(ExperienceStrategy):
    """Clip every vector to the cohort's own median norm, then add up (Sun et al. 2019, arXiv 1911.07963).

    Clipping norms hold for every device and every game, so that most vectors are far below them: this bound follows
    what honest devices send.

    Parameters
    ----------
    norm_bound
        Largest norm of gradient and Fisher diagonal, in medians of the cohort's norms.
    """

    def __init__(self, *arguments: Any, norm_bound: float = 1.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if not norm_bound > 0:
            raise ConfigError(f"norm-bound must be more than zero, not {norm_bound}")
        self.norm_bound = norm_bound

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Clip each part to its bound, and sum."""
        return Aggregate(total(clipped_to_norm(contributions, self.norm_bound)), len(contributions))


def clipped_to_norm(contributions: Sequence[Contribution], norm_bound: float) -> list[ExperienceVector]:
    """Clip gradients and Fisher diagonals to so many medians of the cohort's norms."""
    vectors = [each.vector for each in contributions]
    g, f = (
        norm_bound * float(np.median([np.linalg.norm(part) for part in parts]))
        for parts in ([each.gradient for each in vectors], [each.fisher for each in vectors])
    )
    return [replace(v, gradient=clip(v.gradient, g), fisher=clip(v.fisher, f)) for v in vectors]
