"""The teacher's context: weights of a codec's coordinates, with the Fisher information behind them.

`natural_step` computes the step from an aggregate, before the trust region bounds it:

    w' = w + eta s g / (F + lambda)        s = g^2 / (g^2 + sigma^2 F)

w is the context that the aggregate was played under: zero, unless the cycle had an exchange before. g sums advantages
times score functions; under chance alone its variance is sigma^2 F, and the Wiener factor s shrinks coordinates whose
gradient chance explains. eta is `context.step`, reduced until the mean KL between the teachers with and without the
step on rehearsal turns is at most `context.max_kl`: without that bound, one noisy cycle can undo three.

With privacy noise of variance n^2, the variance under chance is sigma^2 F + n^2, and lambda grows by the same factor:
that is the posterior mode of w for g = F w + noise and the prior variance sigma^2 / lambda. A coordinate that occurs in
no public turn (F = 0) then holds noise only, and gets no step.

A device takes the same step from its own vector for its personal context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.config import ContextConfig
from ..protocol.experience import Aggregate, Vector
from ..protocol.play import Turn


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """A context of the teacher.

    Parameters
    ----------
    weights
        The context w, shape ``(dimension,)``.
    fisher
        Fisher diagonal summed over the exchanges that the weights come from, shape ``(dimension,)``.
    kl
        Mean KL in nats of the last step.
    words
        Texts of the codecs that send words: prompt contexts, of which each turn is answered under one.
    """

    weights: Vector
    fisher: Vector
    kl: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Candidate:
    """One of the contexts that a cycle can end with; `name` says how it differs from the others."""

    context: TeacherContext
    name: str


def no_context(dimension: int) -> TeacherContext:
    """Return the zero context, under which the teacher is the policy itself."""
    return TeacherContext(np.zeros(dimension, np.float32), np.zeros(dimension, np.float32), 0.0)


def natural_step(aggregate: Aggregate, config: ContextConfig) -> Vector:
    """Return the full step, not yet bounded, shape ``(dimension,)``."""
    vector, tiny = aggregate.vector, np.finfo(np.float32).tiny
    g2 = vector.gradient**2
    shrink = g2 / np.maximum(g2 + config.noise * vector.fisher + aggregate.noise, tiny)
    damping = config.damping * (1 + aggregate.noise / np.maximum(config.noise * vector.fisher, 1e-9))
    step: Vector = config.step * shrink * vector.gradient / (vector.fisher + damping)
    return step.astype(np.float32)


def divergence(teacher_log_probs: Sequence[NDArray[np.float32]], turns: Sequence[Turn]) -> float:
    """Mean KL(teacher || behaviour policy) in nats over turns."""
    return mean_divergence(teacher_log_probs, [turn.log_probs for turn in turns])


def mean_divergence(log_probs: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]) -> float:
    """Mean KL(p || q) in nats over states, from the log-probabilities of p and q in each."""
    return float(np.mean([_kl(p, q) for p, q in zip(log_probs, others, strict=True)]))


def _kl(p: NDArray[np.float32], q: NDArray[np.float32]) -> float:
    p_wide = p.astype(np.float64)
    return float((np.exp(p_wide) * (p_wide - q)).sum())
