"""From an aggregate to the teacher's context, inside a trust region.

    w' = w + eta s g / (F + lambda)        s = g^2 / (g^2 + sigma^2 F)

w is the context that the aggregate was played under: zero, unless the cycle had an exchange before.

g sums advantages times centred features, so chance alone gives it a variance of sigma^2 F: the Wiener factor s shrinks
what could be chance, and leaves alone what stands out. eta is as large as `context.step` allows, and no larger than
keeps the mean KL between the teachers with and without the step on rehearsal turns under `context.max_kl`: without that
bound, one noisy cycle can undo three.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.config import ContextConfig
from ..protocol.experience import Aggregate, Vector
from ..protocol.play import Turn
from ..protocol.tactics import cells, tactic_name

HALVINGS = 24
SMALLEST_LESSON = 0.05
LARGEST_WEIGHT = 6.0  # a command made 400 times as likely, or as unlikely: beyond that only rounding changes


@dataclass(frozen=True, slots=True)
class Context:
    """The weights of the tactics, how much play speaks for each, and how far they lead: mean KL to the policy, in nats.

    `support` is the Fisher information of the exchanges that the weights come from.
    """

    weights: Vector
    support: Vector
    kl: float


@dataclass(frozen=True, slots=True)
class Lesson:
    """One tactic as a person reads it."""

    tactic: str
    weight: float
    support: float


def no_context(dimension: int) -> Context:
    """Return the context of the bare policy."""
    return Context(np.zeros(dimension, np.float32), np.zeros(dimension, np.float32), 0.0)


def solve(aggregate: Aggregate, turns: Sequence[Turn], config: ContextConfig, before: Context) -> Context:
    """Take the natural gradient step and shorten it to the trust region by bisection.

    Parameters
    ----------
    turns
        Public turns, played as the aggregate's were: under `before`.

    Returns
    -------
    Context
        With the KL of this step alone.
    """
    vector = aggregate.vector
    g2 = vector.gradient**2
    shrink = g2 / np.maximum(g2 + config.noise * vector.fisher, np.finfo(np.float32).tiny)
    full = config.step * shrink * vector.gradient / (vector.fisher + config.damping)
    full = np.clip(before.weights + full, -LARGEST_WEIGHT, LARGEST_WEIGHT) - before.weights
    scorer = _Divergence(turns, full.astype(np.float32))
    low, high = 0.0, 1.0
    if scorer.mean_kl(1.0) > config.max_kl:
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            low, high = (middle, high) if scorer.mean_kl(middle) <= config.max_kl else (low, middle)
        scale = low
    else:
        scale = 1.0
    weights = (before.weights + scale * full).astype(np.float32)
    return Context(weights, before.support + vector.fisher, scorer.mean_kl(scale))


def divergence(turns: Sequence[Turn], weights: Vector) -> float:
    """Mean KL(teacher || policy) in nats on turns that the bare policy played."""
    return _Divergence(turns, weights).mean_kl(1.0)


def lessons(context: Context) -> list[Lesson]:
    """What was learned, in words, strongest first."""
    order = np.argsort(-np.abs(context.weights))
    return [
        Lesson(tactic_name(int(i)), float(context.weights[i]), float(context.support[i]))
        for i in order
        if abs(context.weights[i]) >= SMALLEST_LESSON
    ]


class _Divergence:
    """KL(teacher || policy) as a function of the step's scale, with the tilts computed once."""

    def __init__(self, turns: Sequence[Turn], full: Vector) -> None:
        self._log_probs = [turn.log_probs.astype(np.float64) for turn in turns]
        self._tilts = [full.astype(np.float64)[cells(turn.situation)] for turn in turns]

    def mean_kl(self, scale: float) -> float:
        return float(np.mean([_kl(p, scale * t) for p, t in zip(self._log_probs, self._tilts, strict=True)]))


def _kl(log_probs: NDArray[np.float64], tilts: NDArray[np.float64]) -> float:
    scores = log_probs + tilts
    top = scores.max()
    log_normaliser = top + np.log(np.exp(scores - top).sum())
    tilted = np.exp(scores - log_normaliser)
    return float((tilted * (tilts - log_normaliser)).sum())
