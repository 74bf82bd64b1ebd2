"""From trajectories to an experience vector: returns, advantages, gradient estimate, Fisher diagonal and counters.

With rewards r:

    G_t = sum_{s >= t} discount^(s - t) r_s        A_t = G_t - baseline[family, t]
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..policies.policy import Policy
from ..protocol.experience import BASE_COUNTERS, Counters, ExperienceVector, Floats, Vector, VectorSpec
from ..protocol.play import Trajectory, turns_of
from .encoder import Encoder


def encode(
    encoder: Encoder,
    policy: Policy,
    trajectories: Sequence[Trajectory],
    spec: VectorSpec,
    baseline: Vector,
    discount: float,
) -> ExperienceVector:
    """Encode trajectories as one experience vector, before clipping.

    Parameters
    ----------
    policy
        The policy that played the trajectories, with its context.
    baseline
        Mean return-to-go by family and step, shape ``(families, horizon)``: what the policy earns on public games.
    discount
        Discount factor per step.
    """
    turns = turns_of(trajectories)
    advantages = advantages_of(trajectories, spec, baseline, discount)
    # A response without an admissible command has no log pi(a | x): its reward counts in the returns of earlier turns.
    valid = [index for index, turn in enumerate(turns) if turn.valid]
    valid_advantages = np.array([advantages[index] for index in valid], dtype=np.float64)
    gradient, fisher = encoder.gradient_and_fisher(policy, [turns[index] for index in valid], valid_advantages)
    counters = count(trajectories, spec, discount)
    return ExperienceVector(spec, gradient.astype(np.float32), fisher.astype(np.float32), counters)


def advantages_of(
    trajectories: Sequence[Trajectory], spec: VectorSpec, baseline: Vector, discount: float
) -> list[float]:
    """Return-to-go minus the baseline of family and step, for all turns in order; parameters as in `encode`."""
    return [
        float(value - baseline[spec.families.index(trajectory.spec.family), min(step, spec.horizon - 1)])
        for trajectory in trajectories
        for step, value in enumerate(_returns(trajectory, discount))
    ]


def count(trajectories: Sequence[Trajectory], spec: VectorSpec, discount: float) -> Counters:
    """Count by family: episodes, wins, turns, prompt tokens, scores, and returns-to-go and visits by step."""
    counters = np.zeros(spec.counters_shape)
    for trajectory in trajectories:
        row, returns = counters[spec.families.index(trajectory.spec.family)], _returns(trajectory, discount)
        steps = min(len(returns), spec.horizon)
        row[:BASE_COUNTERS] += (1, trajectory.won, len(returns), trajectory.prompt_tokens, trajectory.score)
        row[BASE_COUNTERS : BASE_COUNTERS + steps] += returns[:steps]
        row[BASE_COUNTERS + spec.horizon : BASE_COUNTERS + spec.horizon + steps] += 1
    return Counters(counters.astype(np.float32))


def returns_to_go(rewards: Sequence[float], discount: float) -> Floats:
    """Discounted return from each step to the end of the episode, shape ``(len(rewards),)``."""
    returns = np.zeros(len(rewards))
    value = 0.0
    for step in reversed(range(len(rewards))):
        value = rewards[step] + discount * value
        returns[step] = value
    return returns


def _returns(trajectory: Trajectory, discount: float) -> Floats:
    return returns_to_go([turn.reward for turn in trajectory.turns], discount)
