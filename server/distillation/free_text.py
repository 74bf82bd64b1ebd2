"""On-policy context distillation of text that is written freely (arXiv 2602.12275).

In every step the student answers some public states, without the context, with what it is at that moment. The frozen
teacher reads the same states with the context, and the same answers; the loss compares both at every token. Off-policy,
the baseline, the teacher has written the answers beforehand.

The teacher is a policy of the same model with another adapter. While it reads, the student's weights are set aside.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
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
from .losses import Coverage, TokenLoss, chunked_divergence, mean_over_sequences, surprise
from .retention import Retention

Response = tuple[int, ...]


@dataclass
class FreeText:
    """A student that learns to write as its teacher does.

    Parameters
    ----------
    states
        Public states to answer.
    teachers
        For each state the policy at the start of the cycle with the context; it must write freely too.
    written
        One answer of the teacher to each state, for off-policy distillation; None where the student writes.
    retention
        How the student with the context is looked at: on the same answers, against the same teacher.
    coverage
        What the tokens that counted held, step by step.
    seen
        Divergence of the student without the context, step by step.
    """

    model: TorchModel
    states: Sequence[Situation]
    teachers: Sequence[Policy]
    decoding: Decoding
    loss: TokenLoss
    seed: int
    written: Sequence[Response] | None = None
    retention: Retention | None = None
    coverage: list[Coverage] = field(default_factory=list)
    seen: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.rows: list[TokenizedSituation] = self.model.tokenizer.encode(self.states)
        self._scenes = self.model.new_prefix_cache()

    def step(self, number: int, batch: Sequence[int]) -> torch.Tensor:
        """Loss of one step: mean over the tokens of each answer, then over answers."""
        student = TorchPolicy(self.model, {}, self._scenes, live=f"step {number}")
        responses = self._written(number, batch, student)
        with set_aside(self.model):
            target_Nd = self._read(batch, responses)
        found_Nd = torch.cat(reread(student, [self.rows[index] for index in batch], responses))
        mean, coverage = self._compare(found_Nd, target_Nd, responses)
        self.coverage.append(coverage)
        self.seen.append(mean.item())
        return mean if self.retention is None else mean + self._retained(number, batch, student, responses, target_Nd)

    def _compare(
        self, found_Nd: torch.Tensor, target_Nd: torch.Tensor, responses: Sequence[Response]
    ) -> tuple[torch.Tensor, Coverage]:
        losses_N, coverage = chunked_divergence(found_Nd, target_Nd, self.model.base.head, self.loss)
        return mean_over_sequences(losses_N, [len(response) for response in responses]), coverage

    def _retained(
        self,
        number: int,
        batch: Sequence[int],
        student: TorchPolicy,
        responses: Sequence[Response],
        target_Nd: torch.Tensor,
    ) -> torch.Tensor:
        retention = cast(Retention, self.retention)

        def divergences() -> torch.Tensor:
            asked = retention.students(FreePolicy(student, self.decoding), batch)
            return self._compare(self._behind(asked, batch, responses), target_Nd, responses)[0][None]

        return retention.loss(number, divergences)

    def _written(self, number: int, batch: Sequence[int], student: TorchPolicy) -> list[Response]:
        if self.written is not None:
            return [self.written[index] for index in batch]
        streams = [np.random.default_rng([self.seed, 2, number, place]) for place in range(len(batch))]
        asked = list(zip([self.states[index] for index in batch], streams, strict=True))
        writer = FreePolicy(student, replace(self.decoding, scored=False))
        return [answer.tokens for answer in writer.respond(asked)]

    @torch.inference_mode()
    def _read(self, batch: Sequence[int], responses: Sequence[Response]) -> torch.Tensor:
        return self._behind([self.teachers[index] for index in batch], batch, responses)

    def _behind(self, policies: Sequence[Policy], batch: Sequence[int], responses: Sequence[Response]) -> torch.Tensor:
        """What policies, one for each state, have before their heads at each token."""

        def read(policy: Policy, places: list[int]) -> list[torch.Tensor]:
            rows = [self.rows[batch[place]] for place in places]
            return reread(cast(FreePolicy, policy).inner, rows, [responses[place] for place in places])

        asked = [route(policy, self.states[index]) for policy, index in zip(policies, batch, strict=True)]
        return torch.cat(call_grouped(asked, range(len(batch)), read))


@dataclass
class Imitation:
    """A student that learns to write commands, every admissible one as often as the others: the warm start."""

    model: TorchModel
    turns: Sequence[Turn]
    seed: int

    def __post_init__(self) -> None:
        self.rows: list[TokenizedSituation] = self.model.tokenizer.encode([turn.situation for turn in self.turns])
        self._scenes = self.model.new_prefix_cache()

    def step(self, number: int, batch: Sequence[int]) -> torch.Tensor:
        """Mean surprise of commands drawn from what the turns say about them."""
        rng = np.random.default_rng([self.seed, 3, number])
        student = TorchPolicy(self.model, {}, self._scenes, live=f"step {number}")
        responses = [self._drawn(self.turns[index], rng) for index in batch]
        found_Nd = torch.cat(reread(student, [self.rows[index] for index in batch], responses))
        tokens_N = torch.tensor([token for response in responses for token in response], device=found_Nd.device)
        losses_N = surprise(found_Nd, tokens_N, self.model.base.head)
        return mean_over_sequences(losses_N, [len(response) for response in responses])

    def _drawn(self, turn: Turn, rng: np.random.Generator) -> Response:
        probs = np.exp(turn.log_probs.astype(np.float64))
        command = turn.situation.admissible[rng.choice(len(probs), p=probs / probs.sum())]
        mark = f"{COMMAND_MARK} " if self.model.style.thinking else ""
        return (*self.model.tokenizer.ids(f"{mark}{command}"), self.model.tokenizer.end_token)


def reread(
    policy: TorchBackendPolicy, rows: Sequence[TokenizedSituation], responses: Sequence[Response]
) -> list[torch.Tensor]:
    """What a policy has before its head at each token of some answers, normed, shape (t, hidden) each."""
    texts = [[*row.moment, *response[:-1]] for row, response in zip(rows, responses, strict=True)]
    with policy.open_decoder(rows) as decoder:
        found = decoder.extend(range(len(rows)), texts)
    return [part[-len(response) :] for part, response in zip(found, responses, strict=True)]


@contextmanager
def set_aside(model: TorchModel) -> Iterator[None]:
    """Let other versions use the model for a while; afterwards the weights in training are what they were."""
    kept = [weight.detach().clone() for weight in model.trained]
    model.version = ""
    try:
        yield
    finally:
        with torch.no_grad():
            for weight, before in zip(model.trained, kept, strict=True):
                weight.copy_(before)
        model.version = ""
