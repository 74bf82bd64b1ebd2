"""The teacher's context: weights of a codec's coordinates, with the Fisher information behind them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..protocol.experience import Vector
from ..protocol.play import Turn
from ..protocol.records.summary import Lesson

MOST_LENGTHENED = 4.0
BISECTIONS = 6
SMALLEST_LESSON = 0.05  # absolute weight


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


def weights_as_lessons(context: TeacherContext, names: Sequence[str]) -> list[Lesson]:
    """Return the named coordinates whose weights are `SMALLEST_LESSON` or more, strongest first."""
    return [
        Lesson(names[cell], float(context.weights[cell]), float(context.fisher[cell]))
        for cell in np.argsort(-np.abs(context.weights))
        if abs(context.weights[cell]) >= SMALLEST_LESSON
    ]


def longer(
    context: TeacherContext, target: float, measured: Callable[[TeacherContext], TeacherContext]
) -> TeacherContext:
    """Multiply a context until the teacher is about `target` nats from the policy, and return it with its KL.

    Devices explore under contexts that lead a short way, and the direction is the better for it; the teacher need not
    explore. The factor is at most `MOST_LENGTHENED`, since noise grows with it.

    Parameters
    ----------
    context
        A context whose KL is below `target`.
    measured
        Returns a context with its KL in nats.
    """

    def times(factor: float) -> TeacherContext:
        return measured(replace(context, weights=context.weights * np.float32(factor)))

    low, high, best = 1.0, MOST_LENGTHENED, context
    if (longest := times(high)).kl <= target:
        return longest
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        if (tried := times(middle)).kl <= target:
            low, best = middle, tried
        else:
            high = middle
    return best


def divergence(teacher_log_probs: Sequence[NDArray[np.float32]], turns: Sequence[Turn]) -> float:
    """Mean KL(teacher || behaviour policy) in nats over turns."""
    return mean_divergence(teacher_log_probs, [turn.log_probs for turn in turns])


def mean_divergence(log_probs: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]) -> float:
    """Mean KL(p || q) in nats over states, from the log-probabilities of p and q in each."""
    return float(np.mean([_kl(p, q) for p, q in zip(log_probs, others, strict=True)]))


def _kl(p: NDArray[np.float32], q: NDArray[np.float32]) -> float:
    p_wide = p.astype(np.float64)
    return float((np.exp(p_wide) * (p_wide - q)).sum())
