"""Divergences over tokens: that they are what they say, in chunks too, and none of the known mistakes."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.protocol.config import DistilConfig
from fedoel.protocol.errors import ConfigError
from fedoel.server.distillation import losses
from fedoel.server.distillation.losses import (
    TokenLoss,
    chunked_divergence,
    mean_over_sequences,
    token_divergence,
    token_loss,
    token_nll,
)

EXACT = TokenLoss(top_k=0)
KINDS = (
    EXACT, TokenLoss("forward-kl", 0), TokenLoss("jsd", 0, beta=0.3), TokenLoss(top_k=5), TokenLoss(top_k=5, tail=True),
    TokenLoss(top_k=5, renormalise=True), TokenLoss("forward-kl", 5, tail=True), TokenLoss("jsd", 5, renormalise=True),
    TokenLoss(top_k=0, temperature=0.7),
)  # fmt: skip


def drawn(seed: int, *shapes: tuple[int, ...], scale: float = 2.0) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [scale * torch.randn(shape, generator=generator, dtype=torch.float64) for shape in shapes]


def divergence(student: torch.Tensor, teacher: torch.Tensor, loss: TokenLoss) -> torch.Tensor:
    return token_divergence(student, teacher, loss)[0]


@given(st.integers(0, 10_000))
@settings(max_examples=25)
def test_over_the_whole_vocabulary_they_are_those_of_torch(seed: int) -> None:
    student, teacher = drawn(seed, (3, 11), (3, 11))
    p, q = (torch.distributions.Categorical(logits=x.float()) for x in (student, teacher))
    assert torch.allclose(divergence(student, teacher, EXACT), torch.distributions.kl_divergence(p, q), atol=1e-5)
    forward = divergence(student, teacher, TokenLoss("forward-kl", 0))
    assert torch.allclose(forward, torch.distributions.kl_divergence(q, p), atol=1e-5)
    mixed = torch.distributions.Categorical(probs=0.7 * p.probs + 0.3 * q.probs)
    parts = [torch.distributions.kl_divergence(one, mixed) for one in (q, p)]
    jsd = divergence(student, teacher, TokenLoss("jsd", 0, beta=0.3))
    assert torch.allclose(jsd, 0.3 * parts[0] + 0.7 * parts[1], atol=1e-5)


def test_the_temperature_divides_both_logits() -> None:
    student, teacher = drawn(11, (5, 12), (5, 12))
    warm = divergence(student, teacher, TokenLoss(top_k=5, tail=True, temperature=0.7))
    assert torch.allclose(warm, divergence(student / 0.7, teacher / 0.7, TokenLoss(top_k=5, tail=True)))


def test_renormalised_is_the_divergence_given_that_the_token_is_one_of_the_students_likeliest() -> None:
    student, teacher = drawn(12, (5, 12), (5, 12))
    likeliest = student.topk(4, dim=-1).indices
    p, q = (torch.distributions.Categorical(logits=x.gather(-1, likeliest).float()) for x in (student, teacher))
    found = divergence(student, teacher, TokenLoss(top_k=4, renormalise=True))
    assert torch.allclose(found, torch.distributions.kl_divergence(p, q), atol=1e-5)


@pytest.mark.parametrize("loss", KINDS, ids=str)
def test_equal_logits_cost_nothing_and_others_something(loss: TokenLoss) -> None:
    student, teacher = drawn(1, (20, 12), (20, 12))
    assert divergence(student, student, loss).abs().max() < 1e-5
    assert divergence(student, teacher, loss).mean() > 0.05


@pytest.mark.parametrize("loss", [kind for kind in KINDS if kind.tail or kind.renormalise or not kind.top_k], ids=str)
def test_what_is_a_divergence_is_never_negative(loss: TokenLoss) -> None:
    student, teacher = drawn(2, (500, 12), (500, 12))
    assert divergence(student, teacher, loss).min() > -1e-5


def test_a_part_of_the_vocabulary_with_its_tail_is_less_than_the_whole_and_nears_it() -> None:
    student, teacher = drawn(3, (50, 40), (50, 40))
    whole = divergence(student, teacher, EXACT)
    parts = [divergence(student, teacher, TokenLoss(top_k=k, tail=True)) for k in (1, 5, 20, 39)]
    for part in parts:
        assert (part <= whole + 1e-5).all()
    gaps = [float((whole - part).mean()) for part in parts]
    assert gaps == sorted(gaps, reverse=True)
    assert gaps[2] < 0.05 * float(whole.mean())
    assert torch.equal(divergence(student, teacher, TokenLoss(top_k=99)), whole)


def test_the_student_cannot_hide_its_mass_where_the_teacher_does_not_look() -> None:
    """Over the teacher's most likely tokens the loss would fall as the student's mass leaves them."""
    teacher = torch.zeros(1, 8)
    teacher[0, :2] = 6.0
    for loss in (TokenLoss(top_k=2), TokenLoss(top_k=2, tail=True), EXACT):
        costs = []
        for away in (0.0, 3.0, 6.0, 9.0):
            student = teacher.clone()
            student[0, 7] = away
            costs.append(float(divergence(student, teacher, loss)))
        assert costs[0] < costs[2] < costs[3]
        assert costs[-1] > 2.0
        # Without its rest a part is no divergence: see the module.
        assert (loss.top_k and not loss.tail) or costs == sorted(costs)


def test_coverage_says_how_much_counted() -> None:
    student, teacher = torch.zeros(1, 4), torch.zeros(1, 4)
    student[0, 0] = 20.0
    _, masses = token_divergence(student, teacher, TokenLoss(top_k=1))
    assert masses.flatten().tolist() == pytest.approx([1.0, 0.25], abs=1e-4)


def test_padded_vocabularies_are_cut_to_the_shorter() -> None:
    student, teacher = drawn(4, (3, 10), (3, 10))
    padded = torch.cat([teacher, torch.full((3, 6), 50.0, dtype=torch.float64)], dim=-1)
    assert torch.equal(divergence(student, padded, EXACT), divergence(student, teacher, EXACT))


@pytest.mark.parametrize("loss", KINDS, ids=str)
@pytest.mark.parametrize("chunk", [1, 3, 64])
def test_chunks_change_neither_losses_nor_gradients(loss: TokenLoss, chunk: int) -> None:
    student, teacher, head = (x.float() for x in drawn(5, (7, 6), (7, 6), (30, 6), scale=0.8))
    weights = torch.arange(1.0, 8.0)
    whole, parts = (student.clone().requires_grad_() for _ in range(2))
    expected = divergence(whole @ head.T, teacher @ head.T, loss)
    (expected * weights).sum().backward()
    found, coverage = chunked_divergence(parts, teacher, head, loss, chunk=chunk)
    (found * weights).sum().backward()
    assert torch.allclose(found, expected, atol=1e-5)
    assert whole.grad is not None and parts.grad is not None
    assert torch.allclose(parts.grad, whole.grad, atol=1e-5)
    assert 0 < coverage.student <= 1 + 1e-5 and 0 < coverage.teacher <= 1 + 1e-5


def test_no_tensor_holds_more_positions_than_a_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[torch.Size] = []
    original = losses.token_divergence

    def spy(student: torch.Tensor, *rest: Any) -> Any:
        seen.append(student.shape)
        return original(student, *rest)

    monkeypatch.setattr(losses, "token_divergence", spy)
    student, teacher, head = (x.float() for x in drawn(6, (50, 4), (50, 4), (300, 4)))
    losses.chunked_divergence(student.requires_grad_(), teacher, head, EXACT, chunk=8)[0].sum().backward()
    assert max(shape[0] for shape in seen) == 8
    assert sum(shape[0] for shape in seen) == 50


def test_the_gradient_is_exact_and_the_students_alone() -> None:
    student, teacher, head = drawn(7, (2, 3), (2, 3), (9, 3), scale=0.7)
    student, teacher = student.requires_grad_(), teacher.requires_grad_()

    def cost(hidden: torch.Tensor) -> torch.Tensor:
        return divergence(hidden @ head.T, teacher.detach() @ head.T, EXACT).sum()

    chunked_divergence(student, teacher, head, EXACT)[0].sum().backward()
    assert teacher.grad is None
    assert student.grad is not None
    step = 1e-2
    for place in ((0, 0), (1, 2)):
        moved = torch.zeros_like(student)
        moved[place] = step
        slope = float(cost(student.detach() + moved) - cost(student.detach() - moved)) / (2 * step)
        assert float(student.grad[place]) == pytest.approx(slope, rel=0.02, abs=2e-3)


@pytest.mark.parametrize("chunk", [2, 64])
def test_the_teacher_may_have_a_head_of_its_own(chunk: int) -> None:
    student, teacher, head, other = (x.float() for x in drawn(9, (5, 3), (5, 4), (9, 3), (9, 4)))
    expected, masses = token_divergence(student @ head.T, teacher @ other.T, TokenLoss(top_k=3))
    found, coverage = chunked_divergence(student, teacher, head, TokenLoss(top_k=3), other, chunk)
    assert torch.allclose(found, expected, atol=1e-5)
    assert [coverage.student, coverage.teacher] == pytest.approx(masses.mean(-1).tolist())


def test_surprise_is_minus_the_log_probability_of_each_token() -> None:
    student, head = (x.float() for x in drawn(10, (5, 3), (9, 3)))
    tokens = torch.tensor([0, 8, 3, 3, 1])
    expected = -(student @ head.T).log_softmax(-1)[torch.arange(5), tokens]
    assert torch.allclose(token_nll(student, tokens, head, chunk=2), expected, atol=1e-5)


@pytest.mark.parametrize("one", ["tail", "renormalise"])
def test_the_loss_of_a_configuration_has_all_of_its_settings(one: str) -> None:
    settings: dict[str, Any] = {"divergence": "jsd", "top_k": 7, "temperature": 0.7, "beta": 0.2, one: True}
    assert token_loss(DistilConfig(**settings)) == TokenLoss(**settings)


def test_positions_that_do_not_match_are_refused() -> None:
    student, teacher, head = drawn(8, (4, 3), (5, 3), (9, 3))
    with pytest.raises(ValueError, match="not aligned"):
        chunked_divergence(student, teacher, head, EXACT)


def test_a_long_response_counts_no_more_than_a_short_one() -> None:
    found = torch.tensor([1.0, 1.0, 1.0, 5.0])
    assert float(mean_over_sequences(found, [3, 1])) == 3.0
    assert float(mean_over_sequences(found, [3, 0, 1])) == 3.0
    assert float(mean_over_sequences(found[:0], [])) == 0.0


@pytest.mark.parametrize(
    "settings",
    [
        {"divergence": "hinge"}, {"divergence": "forward-kl"}, {"divergence": "jsd"}, {"top_k": -1},
        {"tail": True, "renormalise": True}, {"temperature": 0.0}, {"beta": 1.0},
    ],
    ids=str,
)  # fmt: skip
def test_losses_that_cannot_be_are_refused(settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        TokenLoss(**settings)
