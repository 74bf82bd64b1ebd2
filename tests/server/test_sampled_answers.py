"""Distillation of a reward into a policy that writes: its loss, its gradient, and what it learns."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch

from fedoel.policies.policy import LogProbs, Policy
from fedoel.policies.torch.free import Decoding, FreePolicy
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.distillation.free_text import response_hidden, weights_preserved
from fedoel.server.distillation.losses import token_nll
from fedoel.server.distillation.optimise import Schedule, optimise
from fedoel.server.distillation.parts import Part, gradients_here
from fedoel.server.distillation.sampled_answers import SampledAnswers, _copies, _cross_entropy, _on_a_set, forked_hidden

DECODING = Decoding(1.0, 1, alternatives=4)  # answers of one token: there are few
PROMPTS, STEPS = 4, 60


@dataclass(frozen=True)
class ByLetter:
    """A teacher whose reward is of the first character of an answer."""

    version: str = "by letter"

    def rewards(self, situations: Sequence[Situation]) -> list[LogProbs]:
        return [np.array([reward(c) for c in s.choices], np.float32) for s in situations]

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        raise NotImplementedError

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0] * len(situations)

    abilities: frozenset[str] = frozenset()


def by_letter(policy: Policy) -> Policy:
    return ByLetter()


def reward(command: str) -> float:
    return 2.0 if command[:1].islower() else -1.0


def prompts() -> list[Situation]:
    return [Memory(f"Task {n}.", 5).see(f"-= Room {n} =-\nA room.", ("go e", "take"), 0) for n in range(PROMPTS)]


def task(
    model: TorchModel,
    decoding: Decoding = DECODING,
    targets: Sequence[LogProbs] | None = None,
    examples: float = 0.0,
) -> SampledAnswers:
    turns = [Turn(replace(s, alternatives=("a", "B")), np.log(np.full(2, 0.5, np.float32)), 0, 0.0) for s in prompts()]
    return SampledAnswers(model, model.adapter(), turns, [by_letter] * PROMPTS, decoding, 0, targets, examples)


def mean_reward(model: TorchModel, text: SampledAnswers) -> float:
    """The mean reward of the student's answers."""
    rewards = []
    for seed in range(20):
        streams = [np.random.default_rng([seed, n]) for n in range(PROMPTS)]
        student = FreePolicy(TorchPolicy(model, {}, live=f"mean {seed}"), text.decoding)
        asked = list(zip(prompts(), streams, strict=True))
        rewards += [reward(answer.command) for some in student.sample(asked) for answer in some]
    return float(np.mean(rewards))


def test_a_row_with_several_responses_is_read_as_if_they_were_alone(model: TorchModel) -> None:
    text, policy = task(model), TorchPolicy(model, model.adapter())
    responses = [[(5,), (6, 7, 0)], [(8, 9), (5, 6, 7), (5, 6)]]
    with torch.no_grad():
        together = forked_hidden(policy, text.rows[:2], responses)
        alone = [
            response_hidden(policy, [row], [response])[0]
            for row, some in zip(text.rows[:2], responses, strict=True)
            for response in some
        ]
    for one, other in zip(together, alone, strict=True):
        assert torch.allclose(one, other, atol=1e-5)


def whole_gradient(model: TorchModel, text: SampledAnswers, index: int) -> torch.Tensor:
    """The gradient of the reverse KL to the teacher over all answers of one token, at the start of the cycle."""
    student = TorchPolicy(model, {}, live="whole")
    hidden = response_hidden(student, [text.rows[index]], [(0,)])[0]
    log_probs = (hidden @ model.base.head.T).float().log_softmax(-1)[0]
    commands = [model.tokenizer.decode([token]) for token in range(len(log_probs))]
    rewards = torch.tensor([reward(" ".join(command.split()) or "...") for command in commands])
    loss = (log_probs.exp() * (log_probs - log_probs.detach() - rewards)).sum()
    return torch.cat([part.flatten() for part in torch.autograd.grad(loss, model.trained)])


def test_the_gradient_goes_where_that_of_the_whole_reverse_kl_goes(model: TorchModel) -> None:
    text, total = task(model), torch.zeros(())
    whole = whole_gradient(model, text, 0)
    for number in range(STEPS):
        loss = text.loss_of(Part(number, 0, (0,) * 8)).mean
        total = total + torch.cat([part.flatten() for part in torch.autograd.grad(loss, model.trained)])
    assert torch.nn.functional.cosine_similarity(total, whole, dim=0) > 0.9


def test_the_loss_is_the_reverse_kl_on_the_answers_that_differ() -> None:
    student = torch.tensor([[0.5, 0.25, 0.25], [0.1, 0.2, 0.2]]).log()
    teacher = torch.tensor([[0.2, 0.4, 0.4], [0.3, 0.1, 0.1]]).log()
    copies = _copies([[(1,), (2,), (2,)], [(1,), (2,), (2,)]])
    assert copies.tolist() == [[1, 2, 2], [1, 2, 2]]
    wanted = [
        2 / 3 * np.log((2 / 3) / (1 / 3)) + 1 / 3 * np.log((1 / 3) / (2 / 3)),
        1 / 3 * np.log((1 / 3) / (3 / 4)) + 2 / 3 * np.log((2 / 3) / (1 / 4)),
    ]
    assert _on_a_set(student, teacher, copies).item() == pytest.approx(np.mean(wanted), rel=1e-5)


def test_what_the_teacher_gives_more_often_becomes_likelier_beside_what_was_not_sampled() -> None:
    """The reverse KL on a set is the same however likely the set is; without the second term nothing held it there."""
    student = torch.tensor([[0.2, 0.1, 0.1]]).log().requires_grad_()
    teacher = torch.tensor([[0.1, 0.3, 0.1]]).log() + 7.0  # known but for a constant
    [on_a_set] = torch.autograd.grad(_on_a_set(student, teacher, torch.ones(1, 3)), student)
    [whole] = torch.autograd.grad(_cross_entropy(student, teacher), student)
    assert on_a_set.sum().item() == pytest.approx(0, abs=1e-6)
    assert whole[0].tolist() == pytest.approx([-0.5 / 4.5, -3 / 4.5, -1 / 4.5])  # teacher / student, normalised


def test_the_student_comes_to_give_what_the_teacher_prefers(model: TorchModel) -> None:
    text = task(model)
    before = mean_reward(model, text)
    history = optimise(model, text.rows, gradients_here(model, text.loss_of), Schedule(STEPS, PROMPTS, 2e-2), 0)
    assert mean_reward(model, text) > before + 0.3
    divergences = [recorded["without_context"] for recorded in history.recorded]
    assert min(divergences) > -1e-6
    assert np.mean(divergences[-10:]) < np.mean(divergences[:10])


def constancy(model: TorchModel, text: SampledAnswers, steps: int) -> float:
    """How much the gradients of steps at the start of a cycle have in common: 1 if they are equal, 0 if it is noise."""
    parts = [
        torch.autograd.grad(text.loss_of(Part(number, 0, tuple(range(PROMPTS)))).mean, model.trained)
        for number in range(STEPS)
    ]
    gradients = torch.stack([torch.cat([part.flatten() for part in some]) for some in parts])
    return float(gradients.mean(0).norm() / gradients.norm(dim=1).square().mean().sqrt())


def test_where_the_reward_says_nothing_nothing_is_learned(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    steps = 2 * STEPS
    rewarded = constancy(model, task(model), steps)
    monkeypatch.setattr(ByLetter, "rewards", lambda self, some: [np.zeros(len(s.choices), np.float32) for s in some])
    chance = steps**-0.5  # the root mean square of directions that are drawn; few directions vary, so single ones do
    assert constancy(model, task(model), steps) < 1.6 * chance < 2 * chance < rewarded


def test_the_start_does_not_move_and_the_student_is_left_alone(model: TorchModel) -> None:
    text, responses = task(model), [[(5, 6), (7,)]] * PROMPTS

    def before() -> torch.Tensor:
        with weights_preserved(model):
            return text._before(TorchPolicy(model, text.start), range(PROMPTS), responses)

    first = before()
    with torch.no_grad():
        model.trained[0].add_(1.0)
    moved = [weight.detach().clone() for weight in model.trained]
    assert torch.allclose(first, before(), atol=1e-6)
    assert all(torch.equal(weight, kept) for weight, kept in zip(model.trained, moved, strict=True))


def test_off_policy_the_starts_answers_are_weighted(model: TorchModel) -> None:
    sure = [np.log(np.array([1.0, 1e-9], np.float32))] * PROMPTS
    text, end = task(model, targets=sure), model.tokenizer.end_token
    student = TorchPolicy(model, {}, live="likelihood")
    response = (*model.tokenizer.ids("a"), end)
    with torch.no_grad():
        loss = text._likelihood(student, [0]).mean.item()
        hidden = response_hidden(student, text.rows[:1], [response])[0]
        wanted = token_nll(hidden, torch.tensor(response), model.base.head).sum().item()
    assert loss == pytest.approx(wanted, rel=1e-4)


def likelihood_of_examples(model: TorchModel, text: SampledAnswers) -> list[tuple[float, float]]:
    """Of each prompt, the log-probability of the set of its two examples, and of the second within it."""
    student = TorchPolicy(model, {}, live="examples")
    with torch.no_grad():
        responses = [text._responses(prompt.admissible) for prompt in prompts()]
        rows = text._log_probs(student, range(PROMPTS), responses)
    return [(row.logsumexp(0).item(), (row[1] - row.logsumexp(0)).item()) for row in rows]


@pytest.mark.parametrize("off_policy", [False, True])
def test_examples_become_likelier_as_a_set(model: TorchModel, off_policy: bool) -> None:
    targets = [np.log(np.full(2, 0.5, np.float32))] * PROMPTS if off_policy else None
    text = task(model, replace(DECODING, longest=4), targets, examples=4.0)
    before = likelihood_of_examples(model, text)
    optimise(model, text.rows, gradients_here(model, text.loss_of), Schedule(15, PROMPTS, 1e-2), 0)
    after = likelihood_of_examples(model, text)
    assert np.mean([some for some, _ in after]) > np.mean([some for some, _ in before]) + 1


def test_the_weight_of_examples_multiplies_minus_the_log_probability_of_the_set(model: TorchModel) -> None:
    plain, weighted = task(model), task(model, examples=3.0)
    with torch.no_grad():
        losses = [text.loss_of(Part(0, 0, tuple(range(PROMPTS)))).mean.item() for text in (plain, weighted)]
    wanted = -3.0 * float(np.mean([some for some, _ in likelihood_of_examples(model, weighted)]))
    assert losses[1] - losses[0] == pytest.approx(wanted, rel=1e-4)
