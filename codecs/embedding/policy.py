"""A policy under a context of the codec `embedding`: the teacher, and what devices play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import embedding
from ...policies.policy import LogProbs, Policy
from ...protocol.experience import Vector
from ...protocol.situation import Situation
from ..log_linear import tilted
from .whitening import Whitening

Features = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class RewardTiltedPolicy:
    """A policy tilted by a linear reward head: pi(a | x) exp(w . phi(x, a)) / Z(x).

    It keeps the features of the situations that it has scored, so that encoding them needs no further forward pass:
    each of its situations is one of a device's turns in one exchange.
    """

    policy: Policy
    whitening: Whitening
    weights: Vector
    seen: dict[Situation, Features] = field(default_factory=dict)
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return f"{self.policy.version}+context" if self.weights.any() else self.policy.version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        log_probs = list[LogProbs]()
        results = embedding(self.policy).score_and_embed(situations)
        for situation, (scores, embeddings) in zip(situations, results, strict=True):
            features = self.seen[situation] = self.whitening.features(embeddings)
            log_probs.append(tilted(scores, features @ self.weights))
        return log_probs

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; this context adds none."""
        return self.policy.tokens(situations)

    def features(self, situations: Sequence[Situation]) -> list[Features]:
        """Return phi of each situation's commands, shapes ``(A, dimension)``."""
        missing = [situation for situation in dict.fromkeys(situations) if situation not in self.seen]
        if missing:
            embeddings = embedding(self.policy).embed(missing)
            self.seen.update(zip(missing, map(self.whitening.features, embeddings), strict=True))
        return [self.seen[situation] for situation in situations]
