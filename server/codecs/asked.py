"""The server's half of codecs whose contexts work inside the model: what the teacher says, only the model knows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...client.encoders.encoder import Encoder
from ...client.policy.policy import LogProbs, Policy
from ...client.policy.tactics_policy import TacticsPolicy
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate
from ...protocol.play import Turn
from ...protocol.tactics import DIMENSION
from .context import Context, Lesson, divergence, natural_step

MEASURED_TURNS = 160
TRIES = 12


@dataclass(frozen=True, slots=True)
class AskedCodec:
    """Asks the model what a context does: the step is shortened until some public turns are close enough."""

    encoder: Encoder

    def solve(
        self, aggregate: Aggregate, policy: Policy, turns: Sequence[Turn], config: ContextConfig, before: Context
    ) -> Context:
        """Take the natural gradient step and shorten it to the trust region, where KL grows with the step's square."""
        full = natural_step(aggregate, config)
        some = turns[:: math.ceil(len(turns) / MEASURED_TURNS)]
        scale = 1.0
        for _ in range(TRIES):
            weights = (before.weights + scale * full).astype(before.weights.dtype)
            kl = divergence(self.encoder.under(policy, weights).score([turn.situation for turn in some]), some)
            if kl <= config.max_kl:
                break
            scale *= min(0.9, max(0.1, math.sqrt(config.max_kl / kl)))
        else:
            weights, kl = before.weights, 0.0
        return Context(weights, before.support + aggregate.vector.fisher, kl)

    def teacher(self, policy: Policy, context: Context) -> Policy:
        """Give the policy the context."""
        return self.encoder.under(policy, context.weights)

    def answers(self, policy: Policy, turns: Sequence[Turn], context: Context) -> list[LogProbs]:
        """Ask the policy with the context."""
        return self.teacher(policy, context).score([turn.situation for turn in turns])

    def tilts(self, turns: Sequence[Turn], context: Context) -> list[LogProbs] | None:
        """What a uniform policy says with the context is what it adds, up to a constant; None if it does more."""
        if not self.encoder.adds:
            return None
        uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, np.float32))
        return self.encoder.under(uniform, context.weights).score([turn.situation for turn in turns])

    def lessons(self, context: Context) -> list[Lesson]:
        """Say nothing: these coordinates have no names."""
        return []
