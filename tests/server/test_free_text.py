"""Distillation of text written freely: aligned, on-policy, and with a teacher that stays as it was."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch

from fedoel.policies.policy import Policy
from fedoel.policies.routed import routed
from fedoel.policies.torch.free import Decoding, FreePolicy
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.distillation.free_text import Imitation, TextDistillation, response_hidden, weights_preserved
from fedoel.server.distillation.losses import TokenLoss, token_nll
from fedoel.server.distillation.optimise import Schedule, optimise
from fedoel.server.distillation.parts import Part, gradients_here

DECODING = Decoding(1.0, 4)
LOSS = TokenLoss(top_k=0)
ADVICE = "Advice: zzzz zzzz zzzz zzzz zzzz zzzz.\n"


def states(count: int = 6) -> list[Situation]:
    return [Memory(f"Task {n}.", 5).see(f"-= Room {n} =-\nA room.", ("go e", "take"), 0) for n in range(count)]


def task(model: TorchModel, context: str, loss: TokenLoss = LOSS) -> TextDistillation:
    teacher = FreePolicy(TorchPolicy(model, model.adapter()), DECODING)
    return TextDistillation(model, states(), [teacher.behind(context) if context else teacher] * 6, DECODING, loss, 0)


def part(step: int = 0) -> Part:
    return Part(step, 0, tuple(range(6)))


def test_without_a_context_there_is_nothing_to_learn(model: TorchModel) -> None:
    for loss in (LOSS, TokenLoss(top_k=16), TokenLoss("forward-kl", top_k=8, tail=True), TokenLoss("jsd", top_k=0)):
        found = task(model, "", loss).loss_of(part()).mean
        assert abs(found.item()) < 1e-6
    assert task(model, ADVICE).loss_of(part()).mean.item() > 1e-4


def test_the_student_learns_to_write_as_its_teacher(model: TorchModel) -> None:
    text = task(model, "")
    model.load({})  # what the teacher knows is in its adapter: the student can come to know all of it
    history = optimise(model, text.rows, gradients_here(model, text.loss_of), Schedule(120, 6, 1e-2), 0)
    assert np.mean(history.losses[-10:]) < 0.5 * np.mean(history.losses[:5])
    assert len(history.losses) == len(history.recorded) == 120
    assert history.means(1)["student_mass"] == pytest.approx(1, abs=1e-4)


def test_it_writes_anew_in_every_step_and_the_same_in_another_run(model: TorchModel) -> None:
    text, again = task(model, ADVICE), task(model, ADVICE)
    student = TorchPolicy(model, {}, live="step 0")
    first = text._responses(part(0), student)
    assert first == again._responses(part(0), student)
    assert first != text._responses(part(1), student)
    assert first != text._responses(replace(part(0), number=1), student)


def test_the_end_of_an_answer_is_learned_too(model: TorchModel) -> None:
    text, end = task(model, ADVICE), model.tokenizer.end_token
    student = TorchPolicy(model, {}, live="now")
    with torch.no_grad():
        short, long = (response_hidden(student, text.rows[:1], [response])[0] for response in ((7, 8), (7, 8, end)))
    assert (len(short), len(long)) == (2, 3)  # one position for each token, that of the end included
    imitation = Imitation(model, [Turn(states(1)[0], np.log(np.full(2, 0.5, np.float32)), 0, 0.0)], 0)
    assert imitation._command(imitation.turns[0], np.random.default_rng(0))[-1] == end
    written = [tokens for seed in range(40) for tokens in text._responses(part(seed), student)]
    ended = [tokens for tokens in written if end in tokens]
    assert ended
    assert all(tokens.index(end) == len(tokens) - 1 for tokens in ended)


def test_off_policy_the_teacher_has_responses(model: TorchModel) -> None:
    text = task(model, ADVICE)
    text.teacher_responses = [(5, 6, 0)] * 6
    assert text._responses(Part(3, 0, (1, 2)), TorchPolicy(model, {}, live="x")) == [(5, 6, 0)] * 2


def test_the_teacher_does_not_move_and_the_student_is_left_alone(model: TorchModel) -> None:
    before = model.adapter()
    text, responses = task(model, ADVICE), [(5, 6, 0)] * 6
    first = text._teacher_hidden(range(6), responses)
    with torch.no_grad():
        model.trained[0].add_(1.0)
    moved = [weight.detach().clone() for weight in model.trained]
    with weights_preserved(model):
        second = text._teacher_hidden(range(6), responses)
        assert all(np.array_equal(model.adapter()[name], before[name]) for name in before)
    assert torch.allclose(first, second, atol=1e-6)
    assert all(torch.equal(weight, kept) for weight, kept in zip(model.trained, moved, strict=True))


def test_only_the_student_gets_a_gradient(model: TorchModel) -> None:
    text = task(model, ADVICE)
    model.version = ""
    text.loss_of(part()).mean.backward()
    assert all(weight.grad is not None for weight in model.trained)
    frozen = [weight for weight in model.base.model.parameters() if not weight.requires_grad]
    assert all(weight.grad is None for weight in frozen)


def test_several_teachers_answer_for_their_own_states(model: TorchModel) -> None:
    teacher = FreePolicy(TorchPolicy(model, model.adapter()), DECODING)
    members = [teacher.behind(f"Advice: {letter * 9}.\n") for letter in "xyz"]

    def read(teachers: Sequence[Policy]) -> torch.Tensor:
        return TextDistillation(model, states(), teachers, DECODING, LOSS, 0)._teacher_hidden(range(6), [(5, 0)] * 6)

    whole, alone = read([routed(members)] * 6), [read([member] * 6) for member in members]
    chosen = [min(range(3), key=lambda k: float((alone[k][2 * n] - whole[2 * n]).abs().max())) for n in range(6)]
    assert len(set(chosen)) > 1
    assert all(torch.allclose(alone[k][2 * n], whole[2 * n], atol=1e-5) for n, k in enumerate(chosen))
    drawn = [2, 0, 1, 1, 0, 2]
    mixed = read([members[k] for k in drawn])
    assert all(torch.allclose(alone[k][2 * n], mixed[2 * n], atol=1e-5) for n, k in enumerate(drawn))


def test_the_warm_start_teaches_to_write_commands(model: TorchModel) -> None:
    found = [Turn(state, np.log(np.full(2, 0.5, np.float32)), 0, 0.0) for state in states()]
    imitation = Imitation(model, found, 0)
    losses = optimise(model, imitation.rows, gradients_here(model, imitation.loss_of), Schedule(60, 6, 2e-2), 0).losses
    assert np.mean(losses[-5:]) < 0.5 * losses[0]
    policy = FreePolicy(TorchPolicy(model, model.adapter()), Decoding(0.5, 6))
    answers = policy.respond([(state, np.random.default_rng(n)) for n, state in enumerate(states())])
    assert sum(answer.text in ("go e", "take") for answer in answers) >= 3


def test_surprise_does_not_depend_on_the_chunk() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, head = torch.randn(9, 5, generator=generator, requires_grad=True), torch.randn(11, 5, generator=generator)
    tokens = torch.arange(9)
    whole, parts = token_nll(hidden, tokens, head, 64), token_nll(hidden, tokens, head, 2)
    assert torch.allclose(whole, parts)
    assert torch.allclose(whole, -(hidden @ head.T).log_softmax(-1)[torch.arange(9), tokens], atol=1e-5)
    (one,), (two,) = (torch.autograd.grad(each.sum(), hidden) for each in (whole, parts))
    assert torch.allclose(one, two)
