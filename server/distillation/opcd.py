"""On-policy context distillation (arXiv 2602.12275) with the exact reverse KL over the admissible commands.

The teacher is the policy at the start of the cycle with the context E; it is frozen. The student starts from the same
adapter and sees public states x without the context. The paper estimates the reverse KL from tokens that the student
samples. Here the action tree gives the student's distribution over all admissible commands a, so that

    KL(student || teacher) = sum_a pi_s(a | x) (log pi_s(a | x) - log pi_t(a | E, x))

is exact. The gradient flows through the student only.

Training without the context can spoil the use of contexts in later cycles (ReSAIL, arXiv 2609.39306). The optional
retention term is the same divergence for the student *with* the context. A context that only adds to the scores of
commands is applied to the student's log-probabilities here; for contexts that act inside the model, see
`fedoel.server.distillation.retention`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from ...policies.policy import LogProbs
from .anchor import Anchor, anchored
from .losses import TokenLoss, compare, reverse_kl
from .optimise import Advance, History, Schedule, optimise
from .parts import Loss, Part, PartLoss, gradients_here
from .retention import Retention
from .training_states import TrainingStates

Divergence = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Divergence between the log-probabilities of student and teacher over the same commands, shapes ``(commands,)``."""
Objective = Callable[[int, torch.Tensor], torch.Tensor]
"""Loss of one state, from its index and the student's log-probabilities of its commands, shape ``(commands,)``."""


@dataclass
class Views:
    """The student's divergence from the teacher, without the context and with it, of every state of a part."""

    without: list[float] = field(default_factory=list)
    context: list[float] = field(default_factory=list)

    def means(self) -> dict[str, float]:
        """Return the means of those views that were recorded."""
        views = {"without_context": self.without, "with_context": self.context}
        return {name: float(np.mean(values)) for name, values in views.items() if values}


def divergence_of(name: str, beta: float) -> Divergence:
    """Return the divergence that a configuration names; raises as `TokenLoss` does."""
    loss = TokenLoss(name, top_k=0, beta=beta)
    return lambda student, teacher: compare(student, teacher, loss)


def towards(targets: Sequence[LogProbs], divergence: Divergence) -> Objective:
    """Return the objective that compares the student's answer to a state with the teacher's, ``targets[index]``."""

    def objective(index: int, student: torch.Tensor) -> torch.Tensor:
        return divergence(student, torch.from_numpy(targets[index]).to(student.device))

    return objective


def with_retention(
    targets: Sequence[LogProbs],
    score_offsets: Sequence[LogProbs] | None,
    weight: float,
    views: Views | None = None,
    divergence: Divergence = reverse_kl,
) -> Objective:
    """Return the divergence from the teacher, plus `weight` times that of the student with an additive context.

    Parameters
    ----------
    targets
        The teacher's log-probabilities of each state's commands.
    score_offsets
        What the context adds to the score of each command before normalisation. None leaves the second term out.
    views
        Where both divergences of every state are recorded.
    """
    distilled, views = towards(targets, divergence), views or Views()

    def objective(index: int, student: torch.Tensor) -> torch.Tensor:
        without = distilled(index, student)
        views.without.append(without.item())
        if score_offsets is None:
            return without
        tilted = (student + torch.from_numpy(score_offsets[index]).to(student.device)).log_softmax(-1)
        context = distilled(index, tilted)
        views.context.append(context.item())
        return without + weight * context

    return objective


def commands_loss(
    states: TrainingStates,
    make_objective: Callable[[Views], Objective],
    retained: tuple[Retention, Objective] | None = None,
) -> PartLoss:
    """Return the loss of parts over listed commands.

    Parameters
    ----------
    make_objective
        Makes the loss of one state, which records divergences in the views that it is given.
    retained
        The retention term for contexts that act inside the model, which is added with its own weight, and the loss of
        one state for the log-probabilities of the student with the context.
    """

    def loss(part: Part) -> Loss:
        views = Views()
        mean = _losses(make_objective(views), part.batch, states.log_probs(part.batch)).mean()
        if retained is not None:
            retention, with_context = retained
            term, divergences = retention.loss(
                part.step, lambda: _losses(with_context, part.batch, retention.commands(states, part))
            )
            views.context += divergences
            mean = mean + term
        return Loss(mean, views.means())

    return loss


def train(
    states: TrainingStates,
    objective: Objective,
    schedule: Schedule,
    seed: int,
    advance: Advance = lambda steps: None,
    anchor: Anchor | None = None,
    retained: tuple[Retention, Objective] | None = None,
) -> History:
    """Train the adapter in place on listed commands, in this process; see `commands_loss`.

    Parameters
    ----------
    anchor
        Added to the loss with the weight ``schedule.anchor``.
    """
    loss = anchored(commands_loss(states, lambda views: objective, retained), anchor, seed)
    schedule = schedule if anchor else replace(schedule, anchor=0.0)
    return optimise(states.model, states.rows, gradients_here(states.model, loss), schedule, seed, advance)


def _losses(objective: Objective, batch: Sequence[int], log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Losses of the states in a batch, shape ``(n,)``."""
    return torch.stack([objective(index, student) for index, student in zip(batch, log_probs, strict=True)])
