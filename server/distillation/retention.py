"""Retention: the student *with* the context stays near the teacher, that is near the policy that it was.

Training without the context can spoil the use of a context in later cycles (ReSAIL, arXiv 2609.39306). Where a context
adds to the scores of commands, `fedoel.server.distillation.opcd.retaining` knows what the student says with it. Where
it works inside the model, in the prompt or in the residual stream, the student has to be asked once more: the weights
in training are put behind the teacher's context, and the gradient flows through them. That costs one more pass through
all layers, forward and backward.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from ...policies.policy import Policy
from ...policies.routed import ApplyContext, call_grouped, route, with_contexts
from ...policies.torch.packed_decoder import TorchBackendPolicy
from ...policies.torch.policy import TorchPolicy
from ...protocol.situation import Situation
from .rehearsal import Rehearsal


@dataclass(frozen=True)
class Retention:
    """How the student with the context is looked at.

    Parameters
    ----------
    under
        For each state what gives a policy the context.
    weight
        Of its divergence from the teacher in the loss.
    since
        The step from which on the divergence is noted, even if it weighs nothing.
    seen
        Where it is noted.
    """

    under: Sequence[ApplyContext]
    weight: float
    since: int = 0
    seen: list[float] = field(default_factory=list)

    def loss(self, step: int, divergences: Callable[[], torch.Tensor]) -> torch.Tensor:
        """Return what the term adds to the loss of a step.

        Parameters
        ----------
        divergences
            Asks the student with the context; shape (n,). It is not called where nobody wants to know.
        """
        if not self.weight and step < self.since:
            return torch.zeros(())
        with torch.set_grad_enabled(self.weight > 0):
            found_n = divergences()
        self.seen.extend(found_n.tolist())
        return self.weight * found_n.mean()

    def students(self, policy: Policy, batch: Sequence[int]) -> list[Policy]:
        """Give a policy the contexts of some states."""
        return with_contexts(policy, [self.under[index] for index in batch])

    def commands(
        self, rehearsal: Rehearsal, situations: Sequence[Situation], batch: Sequence[int], version: str
    ) -> list[torch.Tensor]:
        """Log-probabilities of the chosen states' commands for the student with the context.

        Parameters
        ----------
        situations
            All states of the rehearsal.
        version
            Name of the adapter as it is now.

        Returns
        -------
        list of tensors
            One of shape (A,) a state, differentiable in the adapter where contexts work inside the model.
        """

        def read(policy: Policy, places: list[int]) -> list[torch.Tensor]:
            if not isinstance(policy, TorchBackendPolicy):  # its context acts on probabilities, outside of the model
                return [torch.from_numpy(answer) for answer in policy.score([states[place] for place in places])]
            with policy.open_decoder([rehearsal.rows[batch[place]] for place in places]) as decoder:
                return decoder.score_commands()[0]

        states = [situations[index] for index in batch]
        students = self.students(TorchPolicy(rehearsal.model, {}, rehearsal.scenes, live=version), batch)
        return call_grouped([route(*each) for each in zip(students, states, strict=True)], range(len(batch)), read)
