"""The teacher's context, and the step that leads to it (`fedoel.codecs.natural_step`).

    w' = w + eta s g / (F + lambda)        s = g^2 / (g^2 + sigma^2 F)

w is the context that the aggregate was played under: zero, unless the cycle had an exchange before. g sums advantages
times score functions, so chance alone gives it a variance of sigma^2 F: the Wiener factor s shrinks what could be
chance, and leaves alone what stands out. eta is as large as `context.step` allows, and no larger than keeps the mean KL
between the teachers with and without the step on rehearsal turns under `context.max_kl`: without that bound, one noisy
cycle can undo three.

Where noise of variance s^2 was added for privacy, chance is sigma^2 F + s^2, and lambda grows by the same factor: as
the most likely w does, when g = F w + chance and w has the prior variance sigma^2 / lambda. A coordinate that public
play never meets is noise alone, and gets none of the step.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..protocol.experience import Vector
from ..protocol.play import Turn

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class TeacherContext:
    """The weights of a codec's coordinates, how much play speaks for each, and how far they lead: mean KL, in nats.

    `support` is the Fisher information of the exchanges that the weights come from. `words` are texts, where a context
    is words: each a list of what was learned, of which every turn is answered with one.
    """

    weights: Vector
    support: Vector
    kl: float
    words: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice:
    """One of the contexts that an aggregate can become; `name` says what sets it apart from the others."""

    context: TeacherContext
    name: str


def no_context(dimension: int) -> TeacherContext:
    """Return the context of the bare policy."""
    return TeacherContext(np.zeros(dimension, np.float32), np.zeros(dimension, np.float32), 0.0)


def divergence(answers: Sequence[NDArray[np.float32]], turns: Sequence[Turn]) -> float:
    """Mean KL(teacher || player) in nats, from the teacher's answers to turns."""
    return mean_divergence(answers, [turn.log_probs for turn in turns])


def mean_divergence(answers: Sequence[NDArray[np.float32]], others: Sequence[NDArray[np.float32]]) -> float:
    """Mean KL(answers || others) in nats, state by state."""
    return float(np.mean([_kl(answer, other) for answer, other in zip(answers, others, strict=True)]))


def _kl(teacher: NDArray[np.float32], player: NDArray[np.float32]) -> float:
    wide = teacher.astype(np.float64)
    return float((np.exp(wide) * (wide - player)).sum())
