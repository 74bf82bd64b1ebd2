"""Experimental controls: aggregates without information or with wrong information, and turnover of devices.

They have no built-in names; use the path: ``--set strategy.name=fedoel.strategies.controls:Shuffled``.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector
from .mean import Mean


class _Control(Mean):
    """Replaces parts of the cohort's sum."""

    carries_words = False

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors, and replace the sum."""
        whole = super().aggregate(contributions)
        return replace(whole, vector=self.replaced(whole.vector))

    @abstractmethod
    def replaced(self, vector: ExperienceVector) -> ExperienceVector:
        """Return what is used in place of the cohort's sum."""


class Empty(_Control):
    """An aggregate with a zero gradient: the teacher has an empty context, and distillation must change nothing."""

    def replaced(self, vector: ExperienceVector) -> ExperienceVector:
        """Set the gradient to zero."""
        return replace(vector, gradient=np.zeros_like(vector.gradient))


class Shuffled(_Control):
    """An aggregate with permuted gradient coordinates: the right magnitude, assigned to the wrong coordinates."""

    def replaced(self, vector: ExperienceVector) -> ExperienceVector:
        """Permute the gradient over the coordinates with a non-zero Fisher diagonal."""
        gradient, observed = vector.gradient.copy(), np.flatnonzero(vector.fisher)
        gradient[observed] = gradient[np.random.default_rng(self.seed).permutation(observed)]
        return replace(vector, gradient=gradient)


class PublicOnly(_Control):
    """The server's own gradient estimate from public games, in place of the devices': what a server learns alone."""

    needs_games = True

    def replaced(self, vector: ExperienceVector) -> ExperienceVector:
        """Return the server's gradient and Fisher diagonal with the cohort's counters."""
        reference = self.server.reference(*self.current)
        return replace(vector, gradient=reference.gradient, fisher=reference.fisher)


class Stale(_Control):
    """The aggregate of the previous exchange: off-policy by one update. The first exchange uses its own aggregate."""

    age = 1

    def __init__(self, *arguments: Any, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self._history: list[ExperienceVector] = []

    def replaced(self, vector: ExperienceVector) -> ExperienceVector:
        """Return the gradient and Fisher diagonal of `age` exchanges ago with the current cohort's counters."""
        self._history.append(vector)
        old = self._history[max(0, len(self._history) - 1 - self.age)]
        return replace(vector, gradient=old.gradient, fisher=old.fisher)


class Older(Stale):
    """The aggregate of two exchanges ago."""

    age = 2


class Turnover(Mean):
    """Turnover of the fleet: some devices join after the first cycle, and others leave after it.

    Parameters
    ----------
    late
        Fraction of the devices, the last to register, that take no part in the first cycle.
    leaving
        Fraction of the devices, the first to register, that take part in the first cycle only.
    """

    def __init__(self, *arguments: Any, late: float = 0.0, leaving: float = 0.0, **settings: Any) -> None:
        if not (0 <= late < 1 and 0 <= leaving < 1):
            raise ConfigError(f"strategy.options: late and leaving must be in [0, 1), not {late} and {leaving}")
        super().__init__(*arguments, **settings)
        self.late, self.leaving = late, leaving

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Sample from the devices that are present in a cycle."""
        first = int(self.leaving * len(nodes)) if cycle > 1 else 0
        last = len(nodes) - (int(self.late * len(nodes)) if cycle == 1 else 0)
        return super().draw(nodes[first:last], cycle, exchange)
