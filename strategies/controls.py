"""Experimental controls: experience that says nothing, and experience that says the wrong thing. Neither may help.

Use them by path: ``--set strategy.name=fedoel.strategies.controls:Shuffled``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, Contribution
from .mean import Mean


class Empty(Mean):
    """An aggregate whose gradient is zero: the teacher's context is empty, and must change nothing."""

    carries_words = False

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Keep the counters only."""
        whole = super().aggregate(contributions)
        return replace(whole, vector=replace(whole.vector, gradient=np.zeros_like(whole.vector.gradient)))


class Shuffled(Mean):
    """An aggregate whose gradient belongs to other tactics: as strong as the real one, but about something else."""

    carries_words = False

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Give every gradient that was seen to another tactic that was seen, at random under the seed."""
        whole = super().aggregate(contributions)
        gradient = whole.vector.gradient.copy()
        seen = np.flatnonzero(whole.vector.fisher)
        gradient[seen] = gradient[np.random.default_rng(self.seed).permutation(seen)]
        return replace(whole, vector=replace(whole.vector, gradient=gradient))


class Stale(Mean):
    """An aggregate that is one exchange old: it speaks of a player that is no longer there. The first is its own."""

    carries_words = False
    age = 1

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._gone: list[Aggregate] = []

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Keep this one for later, and give what was kept; counters stay those of the cohort."""
        whole = super().aggregate(contributions)
        self._gone.append(whole)
        old = self._gone[max(0, len(self._gone) - 1 - self.age)].vector
        return replace(whole, vector=replace(whole.vector, gradient=old.gradient, fisher=old.fisher))


class Older(Stale):
    """An aggregate that is two exchanges old."""

    age = 2
