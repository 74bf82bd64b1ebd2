"""Distillation into a log-linear policy, in numpy: for policies without a language model.

The student is ``pi(a | x) = exp(w . phi(x, a)) / Z(x)``. The update

    w += rate * (E_teacher[phi] - E_student[phi]) / (E_student[phi^2] + damping)

minimises the mean KL(teacher || student) over states, which is convex in w.
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
) -> NDArray[np.float32]:
    """Fit weights to the teacher's answers; weights of features that occur in no state stay as they are.

    Parameters
    ----------
    features
        phi of every command of each state, shapes ``(commands, dimension)``.
    targets
        The teacher's log-probabilities of each state's commands, shapes ``(commands,)``.
    weights
        Initial weights, shape ``(dimension,)``.

    Returns
    -------
    NDArray
        Fitted weights, shape ``(dimension,)``.
    """
    sizes = [len(log_probs) for log_probs in targets]
    starts = np.concatenate([[0], np.cumsum(sizes)[:-1]]).astype(np.int64)
    phi = np.concatenate(features).astype(np.float64)
    teacher = np.exp(np.concatenate(targets).astype(np.float64))
    rate = 1 / max(1.0, float((phi != 0).sum(axis=1).max()))  # simultaneously active features share the step size
    fitted, squares = weights.astype(np.float64), phi**2
    for _ in range(STEPS):
        student = _softmax(phi @ fitted, starts, sizes)
        fitted += rate * (phi.T @ (teacher - student)) / (squares.T @ student + DAMPING)
    return fitted.astype(np.float32)


def _softmax(scores: NDArray[np.float64], starts: NDArray[np.int64], sizes: Sequence[int]) -> NDArray[np.float64]:
    """Softmax within each state, whose scores begin at its entry of `starts`."""
    powers = np.exp(scores - np.repeat(np.maximum.reduceat(scores, starts), sizes))
    probs: NDArray[np.float64] = powers / np.repeat(np.add.reduceat(powers, starts), sizes)
    return probs
