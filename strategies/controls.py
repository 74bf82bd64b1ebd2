"""Experimental controls: experience that says nothing or the wrong thing, and devices that come and go.

Use them by path: ``--set strategy.name=fedoel.strategies.controls:Shuffled``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.errors import ConfigError
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


class PublicOnly(Mean):
    """What the server learns from its own public games, whatever devices send: what is left to federate."""

    carries_words = False

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Give what the server's rehearsal says, a sum over its games."""
        own = self.server.rounds.reference(*self.current)
        whole = super().aggregate(contributions)
        return replace(whole, vector=replace(whole.vector, gradient=own.gradient, fisher=own.fisher))


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


class Turnover(Mean):
    """A fleet in which some devices come after the first cycle and others have left by then.

    Parameters
    ----------
    late
        Share of the devices, the last to register, that are not asked in the first cycle.
    leaving
        Share of the devices, the first to register, that are asked in the first cycle only.
    """

    def __init__(self, *arguments: Any, late: float = 0.0, leaving: float = 0.0, **settings: Any) -> None:
        if not (0 <= late < 1 and 0 <= leaving < 1):
            raise ConfigError(f"strategy.options: late and leaving must be in [0, 1), not {late} and {leaving}")
        super().__init__(*arguments, **settings)
        self.late, self.leaving = late, leaving

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Draw from the devices that are there in a cycle."""
        first = int(self.leaving * len(nodes)) if cycle > 1 else 0
        last = len(nodes) - (int(self.late * len(nodes)) if cycle == 1 else 0)
        return super().draw(nodes[first:last], cycle, exchange)
