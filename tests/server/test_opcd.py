from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from fedoel.codecs.tactics.coordinates import DIMENSION, cells, tilt
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.distillation.losses import forward_kl, reverse_kl
from fedoel.server.distillation.opcd import Views, towards, train, with_retention
from fedoel.server.distillation.optimise import Schedule
from fedoel.server.distillation.training_states import TrainingStates


def situations(count: int = 12) -> list[Situation]:
    found = []
    for n in range(count):
        memory = Memory(f"Take the {'coin' if n % 2 else 'lamp'}.", 5)
        # Of one length: the tiny model reads bytes, and to it a longer command is a less likely one.
        commands = ("go e", "go n", "take", "open", "look")
        found.append(memory.see(f"-= Room {n % 4} =-\nA room with number {n % 4}.", commands, 0))
    return found


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> TorchModel:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    model = TorchModel(load_base(config, tmp_path), 512)
    rng = np.random.default_rng(1)
    model.load({name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in model.fresh.items()})
    return model


def mean_kl(model: TorchModel, targets: list[np.ndarray], states: list[Situation]) -> float:
    scored = model.score(states)
    return float(np.mean([(np.exp(s) * (s - t)).sum() for s, t in zip(scored, targets, strict=True)]))


def teacher(model: TorchModel, states: list[Situation]) -> list[np.ndarray]:
    weights = np.zeros(DIMENSION, dtype=np.float32)
    weights[cells(states[0])[2]] = 2.0
    return [tilt(log_probs, state, weights) for log_probs, state in zip(model.score(states), states, strict=True)]


def test_training_sees_what_playing_sees(model: TorchModel) -> None:
    states = situations()
    scored = model.score(states)
    rehearsal = TrainingStates.prepare(model, states)
    for batch in ([0, 1, 2, 3], [5], list(range(12))):
        for index, log_probs in zip(batch, rehearsal.log_probs(batch), strict=True):
            assert np.allclose(log_probs.detach().numpy(), scored[index], atol=1e-5)


def test_what_was_played_is_not_read_again_for_training(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    states, played = situations(), model.new_prefix_cache(keep_bottoms=True)
    scored = model.score(states, played)
    anew = TrainingStates.prepare(model, states)
    monkeypatch.setattr(model.trunk, "embed", None)
    kept = TrainingStates.prepare(model, states, played)
    batch = list(range(len(states)))
    for index, ours, theirs in zip(batch, kept.log_probs(batch), anew.log_probs(batch), strict=True):
        assert np.allclose(ours.detach().numpy(), scored[index], atol=1e-5)
        assert torch.allclose(ours, theirs, atol=1e-5)


def gradient_norm(model: TorchModel, rehearsal: TrainingStates, targets: list[np.ndarray]) -> float:
    """L2 norm of the gradient of the mean reverse KL towards some targets, over all states."""
    objective, students = towards(targets, reverse_kl), rehearsal.log_probs(range(len(targets)))
    loss = torch.stack([objective(index, student) for index, student in enumerate(students)]).mean()
    return float(torch.cat([part.flatten() for part in torch.autograd.grad(loss, model.trained)]).norm())


def test_an_empty_context_gives_no_loss_and_no_gradient(model: TorchModel) -> None:
    states = situations()
    rehearsal, targets = TrainingStates.prepare(model, states), model.score(states)
    assert gradient_norm(model, rehearsal, targets) < 1e-3 * gradient_norm(model, rehearsal, teacher(model, states))
    # AdamW makes full-length steps of rounding errors, so that the learning rate is tiny.
    losses = train(rehearsal, towards(targets, reverse_kl), Schedule(2, 12, 1e-6), 0).losses
    assert max(abs(loss) for loss in losses) < 1e-6


def test_distillation_brings_the_student_to_the_teacher_also_where_it_did_not_train(model: TorchModel) -> None:
    states = situations(24)
    targets = teacher(model, states)
    start = mean_kl(model, targets, states)
    train(TrainingStates.prepare(model, states[:12]), towards(targets[:12], reverse_kl), Schedule(60, 6, 2e-2), 0)
    assert mean_kl(model, targets, states) < 0.25 * start


def test_training_is_repeatable_and_leaves_the_base_alone(model: TorchModel) -> None:
    states = situations()
    targets, start = teacher(model, states), model.adapter()
    frozen = {n: p.clone() for n, p in model.base.model.named_parameters() if not p.requires_grad}
    made = []
    for _ in range(2):
        model.load(start)
        train(TrainingStates.prepare(model, states), towards(targets, reverse_kl), Schedule(3, 4, 1e-3), 5)
        made.append(model.adapter())
    assert all(np.array_equal(made[0][name], made[1][name]) for name in start)
    assert any(not np.array_equal(made[0][name], start[name]) for name in start)
    assert all(torch.equal(p, frozen[n]) for n, p in model.base.model.named_parameters() if n in frozen)


def test_the_divergences_are_those_of_torch() -> None:
    generator = torch.Generator().manual_seed(0)
    student, other = (torch.randn(5, generator=generator).log_softmax(-1) for _ in range(2))
    student.requires_grad_()
    p, q = (torch.distributions.Categorical(logits=x) for x in (student, other))
    assert torch.isclose(reverse_kl(student, other), torch.distributions.kl_divergence(p, q))
    assert torch.isclose(forward_kl(student, other), torch.distributions.kl_divergence(q, p))


def test_a_batch_without_any_choice_can_be_trained_on(model: TorchModel) -> None:
    only = Memory("Leave.", 5).see("-= Cell =-\nA cell.", ("go out",), 0)
    before = model.adapter()
    losses = train(
        TrainingStates.prepare(model, [only]), towards(model.score([only]), reverse_kl), Schedule(2, 1, 1e-2), 0
    ).losses
    after = model.adapter()
    assert losses == [0.0, 0.0]
    assert all(np.array_equal(before[name], after[name]) for name in before)


def test_the_gradient_is_the_students_alone() -> None:
    generator = torch.Generator().manual_seed(1)
    logits, other = (torch.randn(6, generator=generator, dtype=torch.float64, requires_grad=True) for _ in range(2))
    teacher = other.detach().log_softmax(-1)
    reverse_kl(logits.log_softmax(-1), teacher).backward()
    found = logits.grad
    assert found is not None
    probs = logits.detach().softmax(-1)
    gap = probs.log() - teacher
    assert torch.allclose(found, probs * (gap - (probs * gap).sum()))
    assert other.grad is None


def test_retention_keeps_what_the_student_does_with_the_context(model: TorchModel) -> None:
    states = situations()
    targets, start = teacher(model, states), model.adapter()
    weights = np.zeros(DIMENSION, dtype=np.float32)
    weights[cells(states[0])[2]] = 2.0
    tilts = [weights[cells(state)] for state in states]
    with_context, without = [], []
    for retention in (0.0, 1.0):
        model.load(start)
        train(
            TrainingStates.prepare(model, states), with_retention(targets, tilts, retention), Schedule(40, 12, 2e-2), 0
        )
        scored = [tilt(log_probs, state, weights) for log_probs, state in zip(model.score(states), states, strict=True)]
        with_context.append(np.mean([(np.exp(s) * (s - t)).sum() for s, t in zip(scored, targets, strict=True)]))
        without.append(mean_kl(model, targets, states))
    assert with_context[1] < 0.75 * with_context[0]
    assert without[0] < without[1]  # it has its price


def test_retention_costs_nothing_as_long_as_the_student_is_the_policy_it_was() -> None:
    generator = torch.Generator().manual_seed(2)
    policy, context = (torch.randn(5, generator=generator) for _ in range(2))
    target = (policy.log_softmax(-1) + context).log_softmax(-1)
    student = policy.log_softmax(-1)
    arguments = [target.numpy()], [context.numpy()]
    alone = with_retention(*arguments, 0.0)(0, student)
    assert alone == towards([target.numpy()], reverse_kl)(0, student)
    assert torch.isclose(with_retention(*arguments, 3.0)(0, student), alone, atol=1e-6)


def test_both_views_of_the_student_are_noted() -> None:
    generator = torch.Generator().manual_seed(3)
    student, target, context = (torch.randn(5, generator=generator) for _ in range(3))
    student, target, views = student.log_softmax(-1), target.log_softmax(-1), Views()
    with_retention([target.numpy()], [context.numpy()], 0.0, views)(0, student)
    tilted = (student + context).log_softmax(-1)
    assert views.means() == pytest.approx(
        {"without_context": float(reverse_kl(student, target)), "with_context": float(reverse_kl(tilted, target))}
    )
    views.without[:] = [1.0, 3.0]
    assert views.means()["without_context"] == 2.0
    only = Views()
    with_retention([target.numpy()], None, 1.0, only)(0, student)
    assert set(only.means()) == {"without_context"}


def test_gradients_add_up_in_a_fixed_order_and_only_while_training(model: TorchModel) -> None:
    states, seen = situations(), []

    def loss(student: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen.append(torch.are_deterministic_algorithms_enabled())
        return reverse_kl(student, target)

    train(TrainingStates.prepare(model, states), towards(model.score(states), loss), Schedule(1, 4, 1e-3), 0)
    assert seen
    assert all(seen)
    assert not torch.are_deterministic_algorithms_enabled()
