"""The contexts that a cycle distils: one, or several of which one is drawn for each public game.

Several contexts come of an aggregate in parts. Which of them a game is played and distilled with is drawn, as often as
the part's devices played its family: the student learns from each where its lessons hold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...codecs.context import TeacherContext
from ...protocol.experience import Aggregate
from ...protocol.play import GameId


@dataclass(frozen=True, slots=True)
class Mixture:
    """Contexts, and the chance of each to be drawn for a game of each family.

    `chances` has shape ``(families, contexts)``; its rows add up to one.
    """

    contexts: tuple[TeacherContext, ...]
    families: tuple[str, ...]
    chances: NDArray[np.float64]

    @classmethod
    def of(cls, context: TeacherContext) -> Mixture:
        """A single context, for every game."""
        return cls((context,), (), np.ones((1, 1)))

    @classmethod
    def weighted(
        cls, contexts: Sequence[TeacherContext], parts: Sequence[Aggregate], families: tuple[str, ...]
    ) -> Mixture:
        """One context for each part of an aggregate, drawn as often as its devices played a family."""
        episodes = np.array([part.vector.counters.episodes for part in parts], dtype=np.float64).T
        cohorts = np.array([part.cohort for part in parts], dtype=np.float64)
        played = episodes.sum(axis=1, keepdims=True)
        known = np.divide(episodes, played, out=np.zeros_like(episodes), where=played > 0)
        return cls(tuple(contexts), families, np.where(played > 0, known, cohorts / cohorts.sum()))

    def draw(self, games: Sequence[GameId], streams: Sequence[int]) -> list[int]:
        """Draw the context of every game, the same ones for the same streams."""
        if len(self.contexts) == 1:
            return [0] * len(games)
        rngs = (np.random.default_rng([stream, len(self.contexts)]) for stream in streams)
        return [
            int(rng.choice(len(self.contexts), p=self.chances[self.families.index(spec.family)]))
            for (spec, _), rng in zip(games, rngs, strict=True)
        ]

    @property
    def moves(self) -> bool:
        """Whether any context has weights other than zero."""
        return any(context.weights.any() for context in self.contexts)

    @property
    def kl(self) -> float:
        """Mean over families of how far the drawn context leads, in nats."""
        return float(self.chances.mean(axis=0) @ np.array([context.kl for context in self.contexts]))

    def merged(self) -> TeacherContext:
        """The one context that is nearest to all: their mean, coordinate by coordinate, weighted by Fisher information.

        It minimises the expected KL to a drawn context, to second order (Matena and Raffel 2021, arXiv 2111.09832).
        """
        if len(self.contexts) == 1:
            return self.contexts[0]
        weights, support = (
            np.stack([getattr(each, name) for each in self.contexts]).astype(np.float64)
            for name in ("weights", "fisher")
        )
        total = support.sum(axis=0)
        mean = np.divide((weights * support).sum(axis=0), total, out=np.zeros_like(total), where=total > 0)
        return TeacherContext(mean.astype(np.float32), total.astype(np.float32), self.kl)
