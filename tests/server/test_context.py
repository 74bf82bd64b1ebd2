from __future__ import annotations

import numpy as np
import pytest

from fedoel.protocol.config import ContextConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory
from fedoel.protocol.tactics import DIMENSION, VOCABULARY, cells, tactic_name, tilt
from fedoel.server.context import Context, lessons, solve

SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", ("coin",), 3, 1e9, 1e9)
COMMANDS = ("take coin", "go east", "look")


def turn() -> Turn:
    situation = Memory("Take the coin.", 5).see("-= Hall =-\nA hall.", COMMANDS, 0)
    return Turn(situation, np.log(np.full(3, 1 / 3, dtype=np.float32)), 0, 0.0)


def aggregate(gradient: float, fisher: float) -> Aggregate:
    array = np.zeros(SPEC.size, dtype=np.float32)
    cell = int(cells(turn().situation)[0])
    array[cell], array[DIMENSION + cell] = gradient, fisher
    return Aggregate(ExperienceVector.unchecked(SPEC, array), 4)


def test_no_gradient_is_no_context() -> None:
    context = solve(aggregate(0.0, 50.0), [turn()], ContextConfig())
    assert not context.weights.any()
    assert abs(context.kl) < 1e-6
    assert lessons(context, aggregate(0.0, 50.0)) == []


@pytest.mark.parametrize("limit", [0.01, 0.1, 0.4])
def test_the_step_ends_at_the_trust_region(limit: float) -> None:
    context = solve(aggregate(30.0, 40.0), [turn()], ContextConfig(max_kl=limit))
    teacher = tilt(turn().log_probs, turn().situation, context.weights)
    kl = float((np.exp(teacher) * (teacher - turn().log_probs)).sum())
    assert kl == pytest.approx(limit, rel=1e-3)
    assert context.kl == pytest.approx(kl, rel=1e-3)


def test_what_could_be_chance_is_shrunk_and_what_stands_out_is_not() -> None:
    config = ContextConfig(step=1.0, damping=1.0, noise=0.1, max_kl=100.0)
    noise = solve(aggregate(1.0, 100.0), [turn()], config).weights.max()
    signal = solve(aggregate(50.0, 100.0), [turn()], config).weights.max()
    assert noise < 0.2 * 1.0 / 101.0
    assert signal > 0.95 * 50.0 / 101.0


def test_lessons_say_what_was_learned() -> None:
    given = aggregate(30.0, 40.0)
    learned = lessons(solve(given, [turn()], ContextConfig()), given)
    assert learned[0].tactic == "take · named in the goal · not yet tried here"
    assert learned[0].weight > 0
    assert learned[0].support == 40.0


def test_lessons_are_sorted_by_strength_and_leave_out_trifles() -> None:
    given = aggregate(0.0, 40.0)
    weights = np.zeros(DIMENSION, dtype=np.float32)
    weights[:4] = (0.5, -2.0, 0.01, 1.0)
    learned = lessons(Context(weights, 0.0, 1.0), given)
    assert [lesson.weight for lesson in learned] == [-2.0, 1.0, 0.5]
    assert [lesson.tactic for lesson in learned] == [tactic_name(cell) for cell in (1, 3, 0)]
