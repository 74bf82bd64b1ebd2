"""On-policy context distillation (arXiv 2602.12275) into the adapter, with an exact loss over the action tree.

The student answers rehearsal states without the context; the frozen teacher, the policy at the start of the cycle, sees
the context. Where the paper samples the student's tokens, the action tree gives the student's whole distribution over
commands, so the expectation in the reverse KL

    KL(student || teacher) = sum_a pi_s(a | x) (log pi_s(a | x) - log pi_t(a | E, x))

is taken exactly, and the gradient flows through the student only.

Training without the context can spoil the use of a context in later cycles (ReSAIL, arXiv 2609.39306). The optional
retention term is the same divergence of the student *with* the context from the teacher, that is from the policy that
the student was at the start of the cycle: see `fedoel.server.distillation.retention`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import torch

from ...policies.policy import LogProbs
from ...policies.tokens import TokenizedSituation
from ...policies.torch.model import TorchModel
from ...protocol.situation import Situation
from .anchor import Anchor
from .losses import TokenLoss, compare
from .rehearsal import Rehearsal, batches
from .retention import Retention

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
Objective = Callable[[int, torch.Tensor], torch.Tensor]
Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Schedule:
    """How long and how hard to train."""

    steps: int
    batch: int
    learning_rate: float
    gradient_norm: float = 1.0
    anchor: float = 0.0


@dataclass
class Views:
    """How far the student is from the teacher without the context and with it, state by state or step by step."""

    without: list[float] = field(default_factory=list)
    context: list[float] = field(default_factory=list)

    def end(self, last: int) -> dict[str, float]:
        """Means over the last that were noted, of the views that there are."""
        views = {"without_context": self.without, "with_context": self.context}
        return {name: float(np.mean(seen[-last:])) for name, seen in views.items() if seen}


def reverse_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(student || teacher) of two log-distributions over the same commands, in nats."""
    return (student.exp() * (student - teacher)).sum()


def forward_kl(student: torch.Tensor, teacher: torch.Tensor) -> torch.Tensor:
    """KL(teacher || student), in nats."""
    return (teacher.exp() * (teacher - student)).sum()


def divergence_of(name: str, beta: float) -> Loss:
    """Return the divergence of a configuration, between distributions over the same commands.

    Raises
    ------
    ConfigError
        If there is none of this name.
    """
    if name == "reverse-kl":
        return reverse_kl
    whole = TokenLoss(name, top_k=0, beta=beta)
    return lambda student, teacher: compare(student, teacher, whole)


def towards(targets: Sequence[LogProbs], loss: Loss) -> Objective:
    """Objective of a state: the divergence of the student's answer from the target for that state."""

    def objective(index: int, student: torch.Tensor) -> torch.Tensor:
        return loss(student, torch.from_numpy(targets[index]).to(student.device))

    return objective


def retaining(
    targets: Sequence[LogProbs],
    tilts: Sequence[LogProbs] | None,
    weight: float,
    views: Views | None = None,
    loss: Loss = reverse_kl,
) -> Objective:
    """Objective of a state: divergence from the teacher, and `weight` times that of the student with the context.

    Parameters
    ----------
    targets
        Log-probabilities of the teacher for each state's commands.
    tilts
        What the context adds to each command's score before normalisation; None leaves the second term out.
    views
        Where both divergences of every state are noted.
    """
    distilled, seen = towards(targets, loss), views or Views()

    def objective(index: int, student: torch.Tensor) -> torch.Tensor:
        without = distilled(index, student)
        seen.without.append(without.item())
        if tilts is None:
            return without
        tilted = (student + torch.from_numpy(tilts[index]).to(student.device)).log_softmax(-1)
        context = distilled(index, tilted)
        seen.context.append(context.item())
        return without + weight * context

    return objective


@dataclass(frozen=True)
class Retained:
    """The retention term of contexts that work inside the model.

    Parameters
    ----------
    situations
        All states that are trained on.
    objective
        Loss of a state, from its index and the log-probabilities of the student with the context.
    """

    retention: Retention
    situations: Sequence[Situation]
    objective: Objective

    def loss(self, rehearsal: Rehearsal, step: int, batch: Sequence[int]) -> torch.Tensor:
        """Return what is added to the loss of a step."""

        def divergences() -> torch.Tensor:
            asked = self.retention.commands(rehearsal, self.situations, batch, f"step {step}")
            return _each(self.objective, batch, asked)

        return self.retention.loss(step, divergences)


def _each(objective: Objective, batch: Sequence[int], log_probs: Sequence[torch.Tensor]) -> torch.Tensor:
    """Losses of some states, shape (n,)."""
    return torch.stack([objective(index, found) for index, found in zip(batch, log_probs, strict=True)])


def train(
    rehearsal: Rehearsal,
    objective: Objective,
    schedule: Schedule,
    seed: int,
    advance: Advance = lambda steps: None,
    anchor: Anchor | None = None,
    retained: Retained | None = None,
) -> list[float]:
    """Fit the adapter in place over trees of commands; returns the mean loss of every step.

    Parameters
    ----------
    objective
        Loss of a state, from its index and the student's log-probabilities of its commands.
    anchor
        Added to the loss, weighted as the schedule says.
    retained
        Added to the loss, weighted by itself.
    """

    def loss(step: int, batch: Sequence[int]) -> torch.Tensor:
        students = rehearsal.log_probs(batch, f"step {step}")
        mean = _each(objective, batch, students).mean()
        return mean if retained is None else mean + retained.loss(rehearsal, step, batch)

    return optimise(rehearsal.model, rehearsal.rows, loss, schedule, seed, advance, anchor)


def optimise(
    model: TorchModel,
    rows: Sequence[TokenizedSituation],
    loss: Callable[[int, Sequence[int]], torch.Tensor],
    schedule: Schedule,
    seed: int,
    advance: Advance = lambda steps: None,
    anchor: Anchor | None = None,
) -> list[float]:
    """Fit the adapter in place; returns the loss of every step.

    Parameters
    ----------
    rows
        The states, of which every step gets some.
    loss
        From the number of the step and the indices of its states.
    """
    weights = model.trained
    optimiser = torch.optim.AdamW(weights, lr=schedule.learning_rate, weight_decay=0.0)
    # A linear decay to zero: in a few dozen steps a constant rate would end on the noise of its last batches.
    decay = torch.optim.lr_scheduler.LambdaLR(optimiser, lambda step: 1 - step / schedule.steps)
    drawn = batches(rows, schedule.batch, np.random.default_rng(seed))
    passages = np.random.default_rng([seed, 1])
    losses: list[float] = []
    with _repeatable():
        for step, batch in zip(range(schedule.steps), drawn, strict=False):
            mean = loss(step, batch)
            optimiser.zero_grad(set_to_none=True)
            mean.backward()
            if anchor is not None:  # apart from the rest: what one backward pass needs is gone before the next
                (schedule.anchor * anchor.loss(passages)).backward()
            torch.nn.utils.clip_grad_norm_(weights, schedule.gradient_norm)
            optimiser.step()
            decay.step()
            losses.append(mean.item())
            advance(1)
    model.changed()
    return losses


@contextmanager
def _repeatable() -> Iterator[None]:
    """Add gradients up in a fixed order: rows that are read several times get theirs from all threads at once.

    Without it the same inputs give another adapter, and so another version, each time. Where a device has no such
    order for an operation, torch warns.
    """
    before = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before[0], warn_only=before[1])
