"""On-policy context distillation of freely written text (OPCD, arXiv 2602.12275).

In every step the student answers a batch of public states without the context, sampling from its current weights. The
frozen teacher reads the same states with the context, followed by the student's responses. The loss compares both at
every token of a response. In the off-policy baseline, the responses are the teacher's, written beforehand.

The teacher uses the same model with another adapter, so that the student's weights are saved while it reads.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from ...policies.policy import Policy
from ...policies.routed import call_grouped, route
from ...policies.tokens import TokenizedSituation
from ...policies.torch.free import Decoding, FreePolicy
from ...policies.torch.model import TorchModel
from ...policies.torch.packed_decoder import TorchBackendPolicy
from ...policies.torch.policy import TorchPolicy
from ...protocol.play import Turn
from ...protocol.prompts import COMMAND_MARK
from ...protocol.situation import Situation
from .losses import Coverage, TokenLoss, chunked_divergence, mean_over_sequences, token_nll
from .parts import Loss, Part
from .retention import Retention

Response = tuple[int, ...]


@dataclass
class TextDistillation:
    """The loss of on-policy or off-policy distillation of free text.

    Parameters
    ----------
    states
        Public states to answer.
    teachers
        For each state, the policy at the start of the cycle with the context; it must write freely too.
    teacher_responses
        One response of the teacher to each state, for off-policy distillation; None for on-policy distillation.
    retention
        The retention term: the student with the context, on the same responses and with the same teacher.
    """

    model: TorchModel
    states: Sequence[Situation]
    teachers: Sequence[Policy]
    decoding: Decoding
    loss: TokenLoss
    seed: int
    teacher_responses: Sequence[Response] | None = None
    retention: Retention | None = None

    def __post_init__(self) -> None:
        self.rows: list[TokenizedSituation] = self.model.tokenizer.encode(self.states)
        self._scenes = self.model.new_prefix_cache()

    def loss_of(self, part: Part) -> Loss:
        """Loss of a part: the mean over the tokens of each response, then over responses."""
        student = TorchPolicy(self.model, {}, self._scenes, live=part.name)
        responses = self._responses(part, student)
        with weights_preserved(self.model):
            teacher_Nd = self._teacher_hidden(part.batch, responses)
        student_Nd = torch.cat(response_hidden(student, [self.rows[index] for index in part.batch], responses))
        mean, coverage = self._compare(student_Nd, teacher_Nd, responses)
        recorded = {
            "without_context": mean.item(), "student_mass": coverage.student, "teacher_mass": coverage.teacher
        }  # fmt: skip
        if self.retention is not None:
            term, with_context = self._retained(self.retention, part, student, responses, teacher_Nd)
            mean = mean + term
            recorded |= {"with_context": float(np.mean(with_context))} if with_context else {}
        return Loss(mean, recorded)

    def _compare(
        self, student_Nd: torch.Tensor, teacher_Nd: torch.Tensor, responses: Sequence[Response]
    ) -> tuple[torch.Tensor, Coverage]:
        losses_N, coverage = chunked_divergence(student_Nd, teacher_Nd, self.model.base.head, self.loss)
        return mean_over_sequences(losses_N, [len(response) for response in responses]), coverage

    def _retained(
        self,
        retention: Retention,
        part: Part,
        student: TorchPolicy,
        responses: Sequence[Response],
        teacher_Nd: torch.Tensor,
    ) -> tuple[torch.Tensor, list[float]]:
        def divergences() -> torch.Tensor:
            students = retention.students(FreePolicy(student, self.decoding), part.batch)
            return self._compare(self._hidden(students, part.batch, responses), teacher_Nd, responses)[0][None]

        return retention.loss(part.step, divergences)

    def _responses(self, part: Part, student: TorchPolicy) -> list[Response]:
        """Sample the student's responses, or return the teacher's for off-policy distillation."""
        if self.teacher_responses is not None:
            return [self.teacher_responses[index] for index in part.batch]
        streams = [np.random.default_rng([*part.seed(self.seed, 2), n]) for n in range(len(part.batch))]
        prompts = list(zip([self.states[index] for index in part.batch], streams, strict=True))
        writer = FreePolicy(student, replace(self.decoding, scored=False))
        return [answer.tokens for answer in writer.respond(prompts)]

    @torch.inference_mode()
    def _teacher_hidden(self, batch: Sequence[int], responses: Sequence[Response]) -> torch.Tensor:
        return self._hidden([self.teachers[index] for index in batch], batch, responses)

    def _hidden(self, policies: Sequence[Policy], batch: Sequence[int], responses: Sequence[Response]) -> torch.Tensor:
        """Hidden states before the head at each response token, ``(N, hidden)``, of one policy per state."""

        def read(policy: Policy, indices: list[int]) -> list[torch.Tensor]:
            rows = [self.rows[batch[index]] for index in indices]
            return response_hidden(cast(FreePolicy, policy).inner, rows, [responses[index] for index in indices])

        members = [route(policy, self.states[index]) for policy, index in zip(policies, batch, strict=True)]
        return torch.cat(call_grouped(members, range(len(batch)), read))


@dataclass
class Imitation:
    """The loss of the warm start: maximum likelihood of commands drawn from the turns' distributions."""

    model: TorchModel
    turns: Sequence[Turn]
    seed: int

    def __post_init__(self) -> None:
        self.rows: list[TokenizedSituation] = self.model.tokenizer.encode([turn.situation for turn in self.turns])

    def loss_of(self, part: Part) -> Loss:
        """Mean negative log-likelihood of one drawn command per state, over its tokens and then over states."""
        rng = np.random.default_rng(part.seed(self.seed, 3))
        student = TorchPolicy(self.model, {}, live=part.name)
        responses = [self._command(self.turns[index], rng) for index in part.batch]
        student_Nd = torch.cat(response_hidden(student, [self.rows[index] for index in part.batch], responses))
        tokens_N = torch.tensor([token for response in responses for token in response], device=student_Nd.device)
        losses_N = token_nll(student_Nd, tokens_N, self.model.base.head)
        return Loss(mean_over_sequences(losses_N, [len(response) for response in responses]))

    def _command(self, turn: Turn, rng: np.random.Generator) -> Response:
        """Draw a command, and return its tokens with the end-of-turn token."""
        probs = np.exp(turn.log_probs.astype(np.float64))
        command = turn.situation.admissible[rng.choice(len(probs), p=probs / probs.sum())]
        mark = f"{COMMAND_MARK} " if self.model.style.thinking else ""
        return (*self.model.tokenizer.ids(f"{mark}{command}"), self.model.tokenizer.end_token)


def response_hidden(
    policy: TorchBackendPolicy, rows: Sequence[TokenizedSituation], responses: Sequence[Response]
) -> list[torch.Tensor]:
    """Return normed hidden states before the head that predict each token of each response, shapes ``(t, hidden)``."""
    texts = [[*row.moment, *response[:-1]] for row, response in zip(rows, responses, strict=True)]
    with policy.open_decoder(rows) as decoder:
        hidden = decoder.extend(range(len(rows)), texts)
    return [hidden_td[-len(response) :] for hidden_td, response in zip(hidden, responses, strict=True)]


@contextmanager
def weights_preserved(model: TorchModel) -> Iterator[None]:
    """Allow other adapters to be loaded, and restore the weights in training on exit."""
    saved = [weight.detach().clone() for weight in model.trained]
    model.version = ""
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(model.trained, saved, strict=True):
                weight.copy_(before)
        model.version = ""
