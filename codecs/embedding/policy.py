"""A policy under a context of the codec `embedding`: the teacher, and what devices play."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import ANSWERS, abilities_of, embedding
from ...policies.policy import Answer, LogProbs, Policy, Sampler, sampled, with_answers
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

    Where the policy writes, its alternatives are answers that it samples from pi, and one of them is drawn in
    proportion to exp(w . phi): sampling importance resampling, which nears the tilted policy as their number grows.
    """

    policy: Policy
    whitening: Whitening
    weights: Vector
    seen: dict[Situation, Features] = field(default_factory=dict)

    @property
    def abilities(self) -> frozenset[str]:
        """To write answers, if the policy does."""
        return abilities_of(self.policy) & {ANSWERS}

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

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Sample answers to each situation, and give one of them."""
        samples = cast(Sampler, self.policy).sample(asked)
        situations = [with_answers(situation, some) for (situation, _), some in zip(asked, samples, strict=True)]
        rewards = self.rewards(situations)
        return [
            _drawn(some, situation.alternatives, reward, rng)
            for (_, rng), some, situation, reward in zip(asked, samples, situations, rewards, strict=True)
        ]

    def rewards(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Return w . phi of each situation's choices, shapes ``(A,)``."""
        return [features @ self.weights for features in self.features(situations)]

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; this context adds none."""
        return self.policy.tokens(situations)

    def features(self, situations: Sequence[Situation]) -> list[Features]:
        """Return phi of each situation's choices, shapes ``(A, dimension)``."""
        missing = [situation for situation in dict.fromkeys(situations) if situation not in self.seen]
        if missing:
            embeddings = embedding(self.policy).embed(missing)
            self.seen.update(zip(missing, map(self.whitening.features, embeddings), strict=True))
        return [self.seen[situation] for situation in situations]


def _drawn(
    answers: Sequence[Answer], alternatives: tuple[str, ...], rewards: LogProbs, rng: np.random.Generator
) -> Answer:
    """Draw one of the answers in proportion to the exponential of its reward."""
    commands = [answer.command for answer in answers]
    shares = np.array([commands.count(command) for command in alternatives]) / len(commands)
    log_probs = tilted(np.log(shares).astype(np.float32), rewards)
    command = alternatives[sampled(np.exp(log_probs.astype(np.float64)), rng)]
    return replace(answers[commands.index(command)], log_probs=log_probs, alternatives=alternatives)
