"""A codec: what is learned is a weight for each verb, for what the goal names, and for what was done here before.

fedoel simulate --set codec.name=examples.verbs:Verbs --set policy.backend=tactics
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from fedoel.policies.policy import LogProbs, Policy
from fedoel.protocol.experience import Floats, Vector
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Situation

VERBS = ("go", "take", "drop", "open", "close", "examine", "look", "inventory", "eat", "cook", "cut", "prepare")
OTHER, NAMED, AGAIN, CELLS = len(VERBS), len(VERBS) + 1, len(VERBS) + 2, len(VERBS) + 3


def features(situation: Situation) -> Floats:
    """Feature vector of every admissible command, shape ``(commands, CELLS)``."""
    phi, goal = np.zeros((len(situation.admissible), CELLS)), situation.goal.strip(".").split()
    for row, command in zip(phi, situation.admissible, strict=True):
        verb, *rest = command.split()
        row[VERBS.index(verb) if verb in VERBS else OTHER] = 1
        row[NAMED] = any(word in goal for word in rest)
        row[AGAIN] = command in situation.done_here
    return phi


@dataclass(frozen=True)
class Tilted:
    """A policy whose scores have the weights of the commands' features added."""

    inner: Policy
    weights: Floats
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return self.inner.version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return self.inner.tokens(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        raw = [s + features(x) @ self.weights for s, x in zip(self.inner.score(situations), situations, strict=True)]
        return [(r - r.max() - np.log(np.exp(r - r.max()).sum())).astype(np.float32) for r in raw]


@dataclass(frozen=True)
class Verbs:
    """The device half; the default server half evaluates the policy under each context."""

    name: str = "verbs"
    vocabulary: str = hashlib.sha256(repr((VERBS, CELLS)).encode()).hexdigest()[:16]
    dimension: int = CELLS
    required_abilities: frozenset[str] = frozenset()
    is_additive: bool = True

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        return Tilted(policy, context.astype(np.float64)) if context.any() else policy

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        gradient, fisher = np.zeros(CELLS), np.zeros(CELLS)
        for turn, advantage in zip(turns, advantages, strict=True):
            phi, probs = features(turn.situation), np.exp(turn.log_probs.astype(np.float64))
            gradient += advantage * (phi[turn.action] - probs @ phi)
            fisher += probs @ (phi - probs @ phi) ** 2
        return gradient, fisher
