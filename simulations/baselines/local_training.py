"""Local training in federated averaging: advantage-weighted regression (Peng et al. 2019, arXiv 1910.00177).

    loss = - sum_t exp(A_t / temperature) log pi(a_t | x_t)

where pi is the distribution over the admissible commands. The weights are positive, so that several epochs over the
same turns are stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from ...codecs.tactics.coordinates import DIMENSION, tilt
from ...codecs.tactics.encoder import moments
from ...codecs.tactics.policy import TacticsPolicy
from ...policies.policy import Policy
from ...protocol.play import Turn

if TYPE_CHECKING:
    import torch

    from ...policies.torch.model import TorchModel
    from ...policies.torch.policy import TorchPolicy

Adapter = Mapping[str, NDArray[np.float32]]
LARGEST_WEIGHT, DAMPING = 20.0, 1.0


@dataclass(frozen=True)
class Lesson:
    """The training task of one device.

    Parameters
    ----------
    adapter
        The adapter that played the turns, from which training starts.
    turns, weights
        The played turns, and the weight of each in the loss: see `weights_of`.
    epochs
        Passes over the turns.
    batch, learning_rate
        Turns per step, and learning rate of AdamW; for language models only.
    seed
        Determines the order of the turns.
    """

    adapter: Adapter
    turns: Sequence[Turn]
    weights: Sequence[float]
    epochs: int
    batch: int
    learning_rate: float
    seed: int


def weights_of(advantages: Sequence[float], temperature: float) -> list[float]:
    """Return ``exp(A_t / temperature)`` for each turn, at most `LARGEST_WEIGHT`."""
    return np.minimum(np.exp(np.asarray(advantages) / temperature), LARGEST_WEIGHT).tolist()  # type: ignore[no-any-return]


def fitted(policy: Policy, lessons: Sequence[Lesson]) -> list[Adapter]:
    """Return the trained adapter of each lesson.

    Parameters
    ----------
    policy
        The policy that played. A language model is trained in place; the next policy to play loads its own adapter.
    """
    if isinstance(policy, TacticsPolicy):
        return [_fit_tactics(lesson) for lesson in lessons]
    model = cast("TorchPolicy", policy).model
    return [_fit_lora(model, lesson) for lesson in lessons]


def _fit_tactics(lesson: Lesson) -> Adapter:
    """Minimise the same loss by natural gradient steps on the weights of tactics."""
    added = np.zeros(DIMENSION)
    for _ in range(lesson.epochs):
        gradient, fisher = np.zeros(DIMENSION), np.zeros(DIMENSION)
        for turn, weight in zip(lesson.turns, lesson.weights, strict=True):
            score, variance = moments(_under(turn, added.astype(np.float32)))
            gradient += weight * score
            fisher += weight * variance
        added += gradient / (fisher + DAMPING)
    return {"weights": (lesson.adapter["weights"] + added).astype(np.float32)}


def _under(turn: Turn, weights: NDArray[np.float32]) -> Turn:
    log_probs = tilt(turn.log_probs, turn.situation, weights)
    return Turn(turn.situation, log_probs, turn.action, turn.reward, turn.response)


def _fit_lora(model: TorchModel, lesson: Lesson) -> Adapter:
    """Train the LoRA layers with AdamW."""
    from ...server.distillation.opcd import train
    from ...server.distillation.optimise import Schedule
    from ...server.distillation.training_states import TrainingStates

    def objective(index: int, student: torch.Tensor) -> torch.Tensor:
        return -lesson.weights[index] * student[lesson.turns[index].action]

    model.load(lesson.adapter)
    states = TrainingStates.prepare(model, [turn.situation for turn in lesson.turns])
    steps = lesson.epochs * -(-len(lesson.turns) // lesson.batch)
    train(states, objective, Schedule(steps, lesson.batch, lesson.learning_rate), lesson.seed)
    return model.adapter()
