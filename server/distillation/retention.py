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
from typing import cast

import torch

from ...client.policy.policy import Policy
from ...client.policy.reading import Readable
from ...client.policy.several import shares
from ...client.policy.torch_policy import TorchPolicy
from ...protocol.situation import Situation
from .rehearsal import Rehearsal

Under = Callable[[Policy], Policy]


@dataclass(frozen=True)
class Retention:
    """How the student with the context is looked at.

    Parameters
    ----------
    under
        Gives a policy the context.
    weight
        Of its divergence from the teacher in the loss.
    since
        The step from which on the divergence is noted, even if it weighs nothing.
    seen
        Where it is noted.
    """

    under: Under
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
            One of shape (A,) a state, differentiable in the adapter.
        """
        student = self.under(TorchPolicy(rehearsal.model, {}, rehearsal.scenes, live=version))
        found: dict[int, torch.Tensor] = {}
        for member, places in shares(student, [situations[index] for index in batch]):
            with cast(Readable, member).reading([rehearsal.rows[batch[place]] for place in places]) as reading:
                found |= dict(zip(places, reading.commands()[0], strict=True))
        return [found[place] for place in range(len(batch))]
