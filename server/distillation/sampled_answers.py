"""Distillation of a reward context into a policy that writes: the teacher is known on answers, up to a constant.

With pi the version at the start of the cycle and r(x, y) the context's reward, the teacher is

    pi_t(y | x) = pi(y | x) exp(r(x, y)) / Z(x)

On-policy, the student samples k answers to each public prompt, and the loss is the sum of two divergences, neither of
which needs Z(x). The first is the reverse KL on the set S of the answers that differ, with both sides normalised over
S:

    sum over y in S of s(y) (log s(y) - log t(y))     s = student / student(S)     t = pi_t / pi_t(S)

It decides between answers, exactly on S, and does not say how likely S is as a whole: with it alone, probability leaks
to what nobody has sampled, which is mostly no answer (docs/results.md). The second is the forward KL, whose gradient
is that of the student's log-likelihood of the teacher's answers. The k answers are the student's, so that each weighs
teacher / student, normalised over the k (self-normalised importance sampling):

    - sum over i of v_i log student(y_i)     v_i in proportion to pi_t(y_i) / student(y_i), held constant

Where the reward says nothing, its expected gradient is zero. The minimum of both is the teacher. The gradient of the
whole reverse KL can be estimated from the same answers as E [(c(y) - b) grad log student(y)], c = log student - log pi
- r, b the mean of c over the others (arXiv 2402.14740); in fourteen steps a student learned less by it.

Off-policy, the answers are those that pi gave at the start of the cycle, weighted in proportion to exp(r).

A reward that has seen few answers can lead to some that no game would take. Public prompts come with examples E of
answers, which a warm start has imitated; a third term keeps them likely as a set, and says nothing about which of them:

    - weight * log (sum over y in E of student(y))
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch

from ...policies.abilities import Rewarding
from ...policies.policy import Answer, LogProbs, Policy, with_answers
from ...policies.routed import ApplyContext, call_grouped, with_contexts
from ...policies.tokens import TokenizedSituation
from ...policies.torch.free import Decoding, FreePolicy
from ...policies.torch.model import TorchModel
from ...policies.torch.packed_decoder import TorchBackendPolicy
from ...policies.torch.policy import TorchPolicy
from ...protocol.play import Turn
from ...protocol.situation import Situation
from ...protocol.versions import Adapter
from .free_text import Response, weights_preserved
from .losses import token_nll
from .parts import Loss, Part


@dataclass
class SampledAnswers:
    """The loss of a distillation; of the reverse KL on the sampled sets, the mean is recorded.

    Parameters
    ----------
    start
        Adapter of the version at the start of the cycle.
    turns
        Public prompts to train on, with alternatives that this version has sampled.
    apply_context
        For each prompt, what gives that version the context: the teacher, which must tell rewards.
    targets
        The teacher's log-probabilities of each turn's alternatives, for off-policy distillation; None for on-policy.
    examples
        Weight of the examples of answers that public prompts come with.
    """

    model: TorchModel
    start: Adapter
    turns: Sequence[Turn]
    apply_context: Sequence[ApplyContext]
    decoding: Decoding
    seed: int
    targets: Sequence[LogProbs] | None = None
    examples: float = 0.0

    def __post_init__(self) -> None:
        self._prompts = [replace(turn.situation, alternatives=()) for turn in self.turns]
        self.rows: list[TokenizedSituation] = self.model.tokenizer.encode(self._prompts)

    def loss_of(self, part: Part) -> Loss:
        """Loss of a part: the mean over prompts and answers."""
        scenes = self.model.new_prefix_cache()
        scenes.prepare([self.rows[index].scene for index in part.batch], version=None)
        student = TorchPolicy(self.model, {}, scenes, live=part.name)
        if self.targets is not None:
            return self._likelihood(student, part.batch)
        answers = self._sample(part, student)
        responses = [[answer.tokens for answer in some] for some in answers]
        start = TorchPolicy(self.model, self.start, scenes.branch())
        with weights_preserved(self.model):  # before the student's weights are used
            teacher_BK = self._before(start, part.batch, responses) + self._rewards(start, part.batch, answers)
        student_BK, unlikely = self._student(student, part.batch, responses)
        divergence = _on_a_set(student_BK, teacher_BK, _copies(responses).to(student_BK))
        mean = divergence + _cross_entropy(student_BK, teacher_BK) + self.examples * unlikely
        return Loss(mean, {"without_context": divergence.item()})

    def _sample(self, part: Part, student: TorchPolicy) -> list[list[Answer]]:
        streams = [np.random.default_rng([*part.seed(self.seed, 2), n]) for n in range(len(part.batch))]
        asked = list(zip([self._prompts[index] for index in part.batch], streams, strict=True))
        return FreePolicy(student, self.decoding).sample(asked)

    @torch.inference_mode()
    def _before(
        self, start: TorchPolicy, batch: Sequence[int], responses: Sequence[Sequence[Response]]
    ) -> torch.Tensor:
        """Log-probabilities at the start of the cycle, shape (B, K)."""
        return torch.stack(self._log_probs(start, batch, responses))

    def _rewards(self, start: TorchPolicy, batch: Sequence[int], answers: Sequence[Sequence[Answer]]) -> torch.Tensor:
        """Return what the context says of each answer, shape (B, K)."""
        situations = [with_answers(self._prompts[index], some) for index, some in zip(batch, answers, strict=True)]
        teachers = with_contexts(FreePolicy(start, self.decoding), [self.apply_context[index] for index in batch])

        def read(teacher: Policy, asked: list[Situation]) -> list[LogProbs]:
            return cast(Rewarding, teacher).rewards(asked)

        rewards = call_grouped(teachers, situations, read)
        return torch.tensor(
            [
                [values[situation.alternatives.index(answer.command)] for answer in some]
                for situation, some, values in zip(situations, answers, rewards, strict=True)
            ]
        )

    def _student(
        self, student: TorchPolicy, batch: Sequence[int], responses: Sequence[Sequence[Response]]
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Log-probabilities of K responses to each prompt, shape (B, K), and minus that of its examples as a set."""
        examples = [self._responses(self._prompts[index].admissible) if self.examples else [] for index in batch]
        rows = self._log_probs(student, batch, [[*some, *more] for some, more in zip(responses, examples, strict=True)])
        number = len(responses[0])
        sets = [row[number:].logsumexp(0) for row in rows if len(row) > number]
        return torch.stack([row[:number] for row in rows]), -torch.stack(sets).mean() if sets else torch.zeros(())

    def _responses(self, texts: Sequence[str]) -> list[Response]:
        tokenizer = self.model.tokenizer
        return [(*tokenizer.ids(text), tokenizer.end_token) for text in texts]

    def _likelihood(self, student: TorchPolicy, batch: Sequence[int]) -> Loss:
        """Return the mean negative log-likelihood of the start's answers, weighted as the teacher would give them."""
        losses, targets = list[torch.Tensor](), cast(Sequence[LogProbs], self.targets)
        for index in batch:
            responses = [self._responses(self.turns[index].situation.choices)]
            log_probs_1A, unlikely = self._student(student, [index], responses)
            weights_A = torch.from_numpy(np.exp(targets[index])).to(log_probs_1A)
            losses.append(self.examples * unlikely - (weights_A * log_probs_1A[0]).sum())
        return Loss(torch.stack(losses).mean())

    def _log_probs(
        self, policy: TorchBackendPolicy, batch: Sequence[int], responses: Sequence[Sequence[Response]]
    ) -> list[torch.Tensor]:
        """Log-probabilities of the responses to each prompt, one of shape (responses,) per prompt."""
        # The head is most of the work, and what a policy is sure of it says again and again.
        distinct = [list(dict.fromkeys(some)) for some in responses]
        hidden = forked_hidden(policy, [self.rows[index] for index in batch], distinct)
        flat = [response for some in distinct for response in some]
        tokens_N = torch.tensor([token for response in flat for token in response], device=hidden[0].device)
        losses_N = token_nll(torch.cat(hidden) / self.decoding.temperature, tokens_N, self.model.base.head)
        sums = iter([-losses.sum() for losses in losses_N.split([len(response) for response in flat])])
        rows = list[torch.Tensor]()
        for some, different in zip(responses, distinct, strict=True):
            log_prob_of = {response: next(sums) for response in different}
            rows.append(torch.stack([log_prob_of[response] for response in some]))
        return rows


def forked_hidden(
    policy: TorchBackendPolicy, rows: Sequence[TokenizedSituation], responses: Sequence[Sequence[Response]]
) -> list[torch.Tensor]:
    """Hidden states before the head that predict each token of each response, shapes ``(t, hidden)``, row by row.

    A row is read once for all of its responses.
    """
    copies, flat = [len(some) for some in responses], [response for some in responses for response in some]
    with policy.open_decoder(rows) as decoder:
        ends = [hidden[-1:] for hidden in decoder.extend(range(len(rows)), [row.moment for row in rows])]
        decoder.fork(copies)
        longer = [index for index, response in enumerate(flat) if len(response) > 1]
        rest = decoder.extend(longer, [flat[index][:-1] for index in longer]) if longer else []
    behind = dict(zip(longer, rest, strict=True))
    firsts = [end for end, number in zip(ends, copies, strict=True) for _ in range(number)]
    return [torch.cat([first, behind[index]]) if index in behind else first for index, first in enumerate(firsts)]


def _copies(responses: Sequence[Sequence[Response]]) -> torch.Tensor:
    """How often each response was given to its prompt, shape (B, K)."""
    return torch.tensor([[some.count(response) for response in some] for some in responses])


def _on_a_set(student_BK: torch.Tensor, teacher_BK: torch.Tensor, copies_BK: torch.Tensor) -> torch.Tensor:
    """Mean over prompts of the reverse KL on the answers that differ; equal ones share their probability."""
    student_BK = (student_BK - copies_BK.log()).log_softmax(1)
    teacher_BK = (teacher_BK - copies_BK.log()).log_softmax(1)
    return (student_BK.exp() * (student_BK - teacher_BK)).sum(1).mean()


def _cross_entropy(student_BK: torch.Tensor, teacher_BK: torch.Tensor) -> torch.Tensor:
    """Mean over prompts of the student's cross-entropy under the teacher in nats, from answers that the student gave.

    It is the forward KL but for the teacher's entropy. Neither side is normalised.
    """
    weights_BK = (teacher_BK - student_BK.detach()).softmax(1)
    return -(weights_BK * student_BK).sum(1).mean()
