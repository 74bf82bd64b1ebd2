"""The device's half of the tactics codec: counting, no model needed.

    g = sum_t A_t (phi(x_t, a_t) - E_pi phi(x_t, .))        F = sum_t Var_pi phi(x_t, .)

with phi(x, a) the unit vector of a's tactic in x: the policy gradient at w = 0 of the tilted policy, and the exact
expectation of its squared score function under the policy that played.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...protocol.experience import BASE_COUNTERS, Counters, ExperienceVector, Vector, VectorSpec
from ...protocol.play import Trajectory, Turn
from ...protocol.tactics import DIMENSION, cells

Floats = NDArray[np.float64]


def encode(trajectories: Sequence[Trajectory], spec: VectorSpec, baseline: Vector, discount: float) -> ExperienceVector:
    """Turn trajectories into one experience vector, not yet clipped.

    Parameters
    ----------
    baseline
        Mean return-to-go by family and step, shape ``(families, horizon)``: what the policy earns on public games.
    discount
        Factor a step on later rewards.
    """
    gradient, fisher = np.zeros(spec.dimension), np.zeros(spec.dimension)
    counters = np.zeros(spec.counters_shape)
    for trajectory in trajectories:
        family = spec.families.index(trajectory.spec.family)
        returns = returns_to_go([turn.reward for turn in trajectory.turns], discount)
        _count(counters[family], trajectory, returns)
        for step, (turn, value) in enumerate(zip(trajectory.turns, returns, strict=True)):
            score, variance = moments(turn)
            advantage = value - baseline[family, min(step, spec.horizon - 1)]
            gradient += advantage * score
            fisher += variance
    return ExperienceVector(
        spec, gradient.astype(np.float32), fisher.astype(np.float32), Counters(counters.astype(np.float32))
    )


def returns_to_go(rewards: Sequence[float], discount: float) -> Floats:
    """Discounted sums of the rewards from each step to the end, shape ``(len(rewards),)``."""
    returns = np.zeros(len(rewards))
    value = 0.0
    for step in reversed(range(len(rewards))):
        value = rewards[step] + discount * value
        returns[step] = value
    return returns


def moments(turn: Turn) -> tuple[Floats, Floats]:
    """Score function of the command that was given, and variance of the features under the policy, each shape (d,)."""
    own = cells(turn.situation)
    probs = np.exp(turn.log_probs.astype(np.float64))
    mean: Floats = np.bincount(own, weights=probs, minlength=DIMENSION).astype(np.float64)
    score = -mean
    score[own[turn.action]] += 1.0
    return score, np.maximum(mean - mean**2, 0.0)


def _count(row: Floats, trajectory: Trajectory, returns: Floats) -> None:
    """Add one episode to its family's counters."""
    horizon = (len(row) - BASE_COUNTERS) // 2
    steps = len(returns[:horizon])
    row[:BASE_COUNTERS] += (1, trajectory.won, len(returns), trajectory.prompt_tokens, trajectory.score)
    row[BASE_COUNTERS : BASE_COUNTERS + steps] += returns[:steps]
    row[BASE_COUNTERS + horizon : BASE_COUNTERS + horizon + steps] += 1
