from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedoel.client.policy.tactics_policy import TacticsPolicy
from fedoel.protocol.config import ContextConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory
from fedoel.protocol.tactics import DIMENSION, VOCABULARY, cells, tactic_name, tilt
from fedoel.server.codecs.codec import load_codec
from fedoel.server.codecs.context import Context, divergence, no_context
from fedoel.server.codecs.tactics import LARGEST_WEIGHT

SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", ("coin",), 3, 1e9, 1e9)
CODEC = load_codec("tactics")
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


def step(given: Aggregate, config: ContextConfig | None = None) -> Context:
    return CODEC.solve(given, UNIFORM, [turn()], config or ContextConfig(), no_context(DIMENSION))


def test_no_gradient_is_no_context() -> None:
    context = step(aggregate(0.0, 50.0))
    assert not context.weights.any()
    assert abs(context.kl) < 1e-6
    assert CODEC.lessons(context) == []


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.4])
def test_the_step_ends_at_the_trust_region(limit: float) -> None:
    context = step(aggregate(30.0, 40.0), ContextConfig(max_kl=limit))
    teacher = tilt(turn().log_probs, turn().situation, context.weights)
    kl = float((np.exp(teacher) * (teacher - turn().log_probs)).sum())
    assert kl == pytest.approx(limit, rel=1e-3)
    assert context.kl == pytest.approx(kl, rel=1e-3)
    assert divergence(CODEC.answers(UNIFORM, [turn()], context), [turn()]) == pytest.approx(kl, rel=1e-3)


def test_a_second_step_starts_where_the_first_ended_and_has_a_trust_region_of_its_own() -> None:
    config, given = ContextConfig(max_kl=0.05), aggregate(30.0, 40.0)
    first = step(given, config)
    led = replace(turn(), log_probs=tilt(turn().log_probs, turn().situation, first.weights))
    second = CODEC.solve(given, UNIFORM, [led], config, first)
    assert second.weights.max() > first.weights.max()
    assert second.kl == pytest.approx(0.05, rel=1e-3)
    assert divergence(CODEC.answers(UNIFORM, [turn()], second), [turn()]) > 0.06
    assert np.array_equal(second.support, 2 * given.vector.fisher)


def test_no_sum_of_steps_makes_a_weight_larger_than_rounding_can_tell() -> None:
    config, context = ContextConfig(max_kl=1e6), no_context(DIMENSION)
    for _ in range(3):
        context = CODEC.solve(aggregate(1e4, 1.0), UNIFORM, [turn()], config, context)
    assert context.weights.max() == LARGEST_WEIGHT


def test_what_could_be_chance_is_shrunk_and_what_stands_out_is_not() -> None:
    config = ContextConfig(step=1.0, damping=1.0, noise=0.1, max_kl=100.0)
    noise = step(aggregate(1.0, 100.0), config).weights.max()
    signal = step(aggregate(50.0, 100.0), config).weights.max()
    assert noise < 0.2 * 1.0 / 101.0
    assert signal > 0.95 * 50.0 / 101.0


def test_lessons_say_what_was_learned() -> None:
    learned = CODEC.lessons(step(aggregate(30.0, 40.0)))
    assert learned[0].tactic == "take · named in the goal · not yet tried here"
    assert learned[0].weight > 0
    assert learned[0].support == 40.0


def test_lessons_are_sorted_by_strength_and_leave_out_trifles() -> None:
    weights = np.zeros(DIMENSION, dtype=np.float32)
    weights[:4] = (0.5, -2.0, 0.01, 1.0)
    learned = CODEC.lessons(Context(weights, np.zeros_like(weights), 0.0))
    assert [lesson.weight for lesson in learned] == [-2.0, 1.0, 0.5]
    assert [lesson.tactic for lesson in learned] == [tactic_name(cell) for cell in (1, 3, 0)]
