"""Distillation into a log-linear player: numpy only, exact, convex.

    pi(a | x) = exp(w . phi(x, a)) / Z(x)
    w += rate * (E_teacher phi - E_student phi) / (E_student phi^2 + damping)

minimises the mean KL(teacher || student) over states. For players without a language model, built in or plugged in.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Features = NDArray[np.floating]
STEPS, DAMPING = 100, 1.0


def fit(
    features: Sequence[Features],
    targets: Sequence[NDArray[np.float32]],
    weights: NDArray[np.float32],
    steps: int = STEPS,
    offsets: Sequence[NDArray[np.float32]] | None = None,
) -> NDArray[np.float32]:
    """Move weights towards the targets, and return them; where no state says anything they stay.

    Parameters
    ----------
    features
        phi of every command of each state, shapes ``(commands, dimension)``.
    targets
        The teacher's log-probabilities of each state's commands.
    weights
        Where to start, shape ``(dimension,)``.
    offsets
        Scores that each command has beside ``w . phi``; none by default.
    """
    sizes = [len(each) for each in targets]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    phi = np.concatenate(features).astype(np.float64)
    teacher = np.exp(np.concatenate(targets).astype(np.float64))
    fixed = np.zeros(len(phi)) if offsets is None else np.concatenate(offsets).astype(np.float64)
    rate = 1 / max(1.0, float((phi != 0).sum(axis=1).max()))  # features that fire together share a step
    found, squares = weights.astype(np.float64), phi**2
    for _ in range(steps):
        student = _softmax(phi @ found + fixed, starts, sizes)
        found += rate * (phi.T @ (teacher - student)) / (squares.T @ student + DAMPING)
    return found.astype(np.float32)


def _softmax(scores: NDArray[np.float64], starts: NDArray[np.int64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Normalise each state's scores by themselves."""
    powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), sizes))
    normalised: NDArray[np.float64] = powers / np.repeat(np.add.reduceat(powers, starts), sizes)
    return normalised
