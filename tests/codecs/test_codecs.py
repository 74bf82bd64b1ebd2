from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs import prefix as soft_prompt
from fedoel.codecs import steering
from fedoel.codecs.codec import load_codec
from fedoel.codecs.context import TeacherContext, divergence, no_context
from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY, cells, tactic_name, tilt
from fedoel.codecs.tactics.policy import LARGEST_WEIGHT, TacticsPolicy
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.config import ContextConfig, PolicyConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory

SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", ("coin",), 3, 1e9, 1e9)
CODEC = load_codec("tactics")
Played = tuple[TorchPolicy, list[Turn]]
UNIFORM = TacticsPolicy("v", np.zeros(DIMENSION, np.float32))
COMMANDS = ("take coin", "go east", "look")


def turn() -> Turn:
    situation = Memory("Take the coin.", 5).see("-= Hall =-\nA hall.", COMMANDS, 0)
    return Turn(situation, np.log(np.full(3, 1 / 3, dtype=np.float32)), 0, 0.0)


def aggregate(gradient: float, fisher: float) -> Aggregate:
    array = np.zeros(SPEC.size, dtype=np.float32)
    cell = int(cells(turn().situation)[0])
    array[cell], array[DIMENSION + cell] = gradient, fisher
    return Aggregate(ExperienceVector.unchecked(SPEC, array), 4)


def step(given: Aggregate, config: ContextConfig | None = None) -> TeacherContext:
    return CODEC.step(given, UNIFORM, [turn()], config or ContextConfig(), no_context(DIMENSION))


def test_a_zero_gradient_gives_the_zero_context() -> None:
    context = step(aggregate(0.0, 50.0))
    assert not context.weights.any()
    assert abs(context.kl) < 1e-6
    assert CODEC.lessons(UNIFORM, [turn()], context) == []


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.4])
def test_the_step_ends_at_the_trust_region(limit: float) -> None:
    context = step(aggregate(30.0, 40.0), ContextConfig(max_kl=limit))
    teacher = tilt(turn().log_probs, turn().situation, context.weights)
    kl = float((np.exp(teacher) * (teacher - turn().log_probs)).sum())
    assert kl == pytest.approx(limit, rel=1e-3)
    assert context.kl == pytest.approx(kl, rel=1e-3)
    assert divergence(CODEC.teacher_log_probs(UNIFORM, [turn()], context), [turn()]) == pytest.approx(kl, rel=1e-3)


def test_a_second_step_starts_where_the_first_ended_and_has_a_trust_region_of_its_own() -> None:
    config, given = ContextConfig(max_kl=0.05), aggregate(30.0, 40.0)
    first = step(given, config)
    played = replace(turn(), log_probs=tilt(turn().log_probs, turn().situation, first.weights))
    second = CODEC.step(given, UNIFORM, [played], config, first)
    assert second.weights.max() > first.weights.max()
    assert second.kl == pytest.approx(0.05, rel=1e-3)
    assert divergence(CODEC.teacher_log_probs(UNIFORM, [turn()], second), [turn()]) > 0.06
    assert np.array_equal(second.fisher, 2 * given.vector.fisher)


def test_weights_are_bounded_over_several_steps() -> None:
    config, context = ContextConfig(max_kl=1e6), no_context(DIMENSION)
    for _ in range(3):
        context = CODEC.step(aggregate(1e4, 1.0), UNIFORM, [turn()], config, context)
    assert context.weights.max() == LARGEST_WEIGHT


def test_the_wiener_factor_shrinks_noise_and_keeps_signal() -> None:
    config = ContextConfig(step=1.0, damping=1.0, noise=0.1, max_kl=100.0)
    noise = step(aggregate(1.0, 100.0), config).weights.max()
    signal = step(aggregate(50.0, 100.0), config).weights.max()
    assert noise < 0.2 * 1.0 / 101.0
    assert signal > 0.95 * 50.0 / 101.0


def test_lessons_name_tactics() -> None:
    learned = CODEC.lessons(UNIFORM, [turn()], step(aggregate(30.0, 40.0)))
    assert learned[0].tactic == "take · named in the goal · not yet tried here"
    assert learned[0].weight > 0
    assert learned[0].support == 40.0


def test_lessons_are_sorted_by_strength_and_leave_out_small_weights() -> None:
    weights = np.zeros(DIMENSION, dtype=np.float32)
    weights[:4] = (0.5, -2.0, 0.01, 1.0)
    learned = CODEC.lessons(UNIFORM, [turn()], TeacherContext(weights, np.zeros_like(weights), 0.0))
    assert [lesson.weight for lesson in learned] == [-2.0, 1.0, 0.5]
    assert [lesson.tactic for lesson in learned] == [tactic_name(cell) for cell in (1, 3, 0)]


@pytest.fixture
def played(tiny_base: Path, tmp_path: Path) -> Played:
    """Make a small model, and a turn that it has played."""
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    policy = TorchPolicy(TorchModel(load_base(config, tmp_path), 64), {})
    situation = Memory("Take the coin.", 5).see("-= Hall =-\nA hall.", ("go east", "go west", "go down"), 0)
    return policy, [Turn(situation, policy.score([situation])[0], 0, 0.0)]


def test_a_candidate_is_one_block_at_one_of_two_strengths(played: Played) -> None:
    (policy, turns), codec = played, load_codec("steering")
    spec = replace(SPEC, codec="steering", dimension=steering.DIMENSION, vocabulary=steering.VOCABULARY)
    array = np.zeros(spec.size, dtype=np.float32)
    array[: steering.DIMENSION] = np.random.default_rng(2).normal(0, 9, steering.DIMENSION)
    array[steering.DIMENSION : 2 * steering.DIMENSION] = 100.0
    bounds, given = ContextConfig(step=4.0, max_kl=0.002), Aggregate(ExperienceVector.unchecked(spec, array), 4)
    context = codec.step(given, policy, turns, bounds, no_context(steering.DIMENSION))
    assert codec.has_candidates and np.count_nonzero(context.weights) == steering.DIMENSION
    candidates = codec.candidates(policy, turns, context, bounds)
    assert len({candidate.name for candidate in candidates}) == len(candidates) == 2 * len(steering.BLOCKS)
    for (name, block), strong, weak in zip(steering.BLOCKS.items(), candidates[::2], candidates[1::2], strict=True):
        assert strong.name.startswith(name) and weak.name.startswith(name)
        ratios = strong.context.weights[block] / context.weights[block]
        assert np.allclose(ratios, ratios[0], rtol=1e-4) and ratios[0] > 0
        assert np.count_nonzero(strong.context.weights) == block.stop - block.start
        assert np.allclose(weak.context.weights, strong.context.weights / 2)
        assert 0.0005 < strong.context.kl <= 0.002
        assert 0 < weak.context.kl < 0.6 * strong.context.kl
        teacher = codec.teacher_log_probs(policy, turns, strong.context)
        assert strong.context.kl == pytest.approx(divergence(teacher, turns))


def test_the_norm_of_a_soft_prompt_is_bounded_whatever_its_kl(played: Played) -> None:
    (policy, turns), codec, size = played, load_codec("prefix"), soft_prompt.DIMENSION
    spec = replace(SPEC, codec="prefix", dimension=size, vocabulary=soft_prompt.VOCABULARY)
    array = np.concatenate([np.full(size, 50.0), np.ones(spec.size - size)]).astype(np.float32)
    given, bounds = Aggregate(ExperienceVector.unchecked(spec, array), 4), ContextConfig(max_kl=1e6)
    context = codec.step(given, policy, turns, bounds, no_context(size))
    assert np.linalg.norm(context.weights) == pytest.approx(soft_prompt.RADIUS, rel=1e-4)
    assert context.kl == pytest.approx(divergence(codec.teacher_log_probs(policy, turns, context), turns))


@pytest.mark.parametrize("name", ["tactics", "tactics-text", "prefix", "text", "raw"])
def test_other_codecs_have_no_candidates(name: str) -> None:
    codec = load_codec(name)
    assert not codec.has_candidates
    assert codec.candidates(UNIFORM, [turn()], no_context(codec.encoder.dimension), ContextConfig()) == []
