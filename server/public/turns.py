"""Situations as turns of a policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ...policies.abilities import speaker
from ...policies.policy import Policy
from ...protocol.play import Turn
from ...protocol.situation import Situation


def turns_under(
    policy: Policy, situations: Sequence[Situation], seed: Sequence[int] = (), first: int = 0
) -> list[Turn]:
    """Return situations as turns with a policy's log-probabilities; what was chosen is not known and has no reward.

    Parameters
    ----------
    seed
        Seed of the answers of a policy that writes: its log-probabilities are about alternatives that it samples.
    first
        Number of the first situation, of those that are answered with this seed.
    """
    if (writer := speaker(policy)) is not None:
        streams = [np.random.default_rng([*seed, first + index]) for index in range(len(situations))]
        answers = writer.respond(list(zip(situations, streams, strict=True)))
        return [
            Turn(replace(situation, alternatives=answer.alternatives), answer.log_probs, 0, 0.0)
            for situation, answer in zip(situations, answers, strict=True)
        ]
    return [
        Turn(situation, log_probs, 0, 0.0)
        for situation, log_probs in zip(situations, policy.score(situations), strict=True)
    ]
