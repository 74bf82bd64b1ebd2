"""Retention: keep the student *with* the context close to the teacher, which is the policy that the student started as.

Training without the context can spoil the use of contexts in later cycles (ReSAIL, arXiv 2609.39306). For a context
that adds to the scores of commands, `fedoel.server.distillation.opcd.with_retention` computes the student with the
context from the student without it. A context that acts inside the model, in the prompt or in the residual stream,
needs a second pass through all layers, forward and backward: the student's weights in training are run with the
teacher's context, and the gradient flows through them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ...policies.policy import Policy
from ...policies.routed import ApplyContext, call_grouped, route, with_contexts
from ...policies.torch.packed_decoder import TorchBackendPolicy
from ...policies.torch.policy import TorchPolicy
from .parts import Part
from .training_states import TrainingStates


@dataclass(frozen=True)
class Retention:
    """The divergence of the student with the context from the teacher: its weight, and when it is computed.

    Parameters
    ----------
    under
        For each state, the function that gives a policy the context.
    weight
        Weight of the divergence in the loss.
    since
        First step in which the divergence is computed even if its weight is zero, to be recorded.
    """

    under: Sequence[ApplyContext]
    weight: float
    since: int = 0

    def loss(self, step: int, divergences: Callable[[], torch.Tensor]) -> tuple[torch.Tensor, list[float]]:
        """Return the retention term of a part's loss, and its divergences to be recorded.

        Parameters
        ----------
        divergences
            Computes the divergences of the part, shape ``(n,)``. Not called where they are neither weighted nor
            recorded.
        """
        if not self.weight and step < self.since:
            return torch.zeros(()), []
        with torch.set_grad_enabled(self.weight > 0):
            divergences_n = divergences()
        return self.weight * divergences_n.mean(), divergences_n.tolist()

    def students(self, policy: Policy, batch: Sequence[int]) -> list[Policy]:
        """Give a policy the context of each state in a batch."""
        return with_contexts(policy, [self.under[index] for index in batch])

    def commands(self, states: TrainingStates, part: Part) -> list[torch.Tensor]:
        """Log-probabilities of the commands of a part's states for the student with the context.

        Returns
        -------
        list of Tensor
            One of shape ``(commands,)`` per state, differentiable in the adapter if contexts act inside the model.
        """

        def read(policy: Policy, indices: list[int]) -> list[torch.Tensor]:
            # A context that changes scores outside the model needs no gradient.
            if not isinstance(policy, TorchBackendPolicy):
                return [torch.from_numpy(scores) for scores in policy.score([chosen[index] for index in indices])]
            with policy.open_decoder([states.rows[part.batch[index]] for index in indices]) as decoder:
                return decoder.score_commands()[0]

        chosen = [states.situations[index] for index in part.batch]
        students = self.students(TorchPolicy(states.model, {}, live=part.name), part.batch)
        policies = [route(student, situation) for student, situation in zip(students, chosen, strict=True)]
        return call_grouped(policies, range(len(part.batch)), read)
