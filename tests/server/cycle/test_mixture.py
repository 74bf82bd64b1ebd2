"""Several contexts in one cycle: which is drawn for a game, what they are together, and what is distilled."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import cast

import numpy as np
import pytest

from fedoel.codecs.codec import load_codec
from fedoel.codecs.context import TeacherContext
from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.policies.policy import Policy
from fedoel.protocol.experience import Aggregate, Counters, ExperienceVector, VectorSpec
from fedoel.protocol.play import GameSpec, Trajectory, Turn, turns_of
from fedoel.protocol.situation import Memory
from fedoel.server.cycle.distil import consolidation
from fedoel.server.cycle.mixture import Mixture
from fedoel.server.cycle.run import TrainingTurns

FAMILIES = ("lake", "coin", "never")
SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", FAMILIES, 2, 50.0, 200.0)
GAMES = [(GameSpec(FAMILIES[place % 2], (), 3), place) for place in range(400)]


def part(*episodes: float, cohort: int = 2) -> Aggregate:
    counters = np.zeros(SPEC.counters_shape, np.float32)
    counters[:, 0] = episodes
    zeros = np.zeros(DIMENSION, np.float32)
    return Aggregate(ExperienceVector(SPEC, zeros, zeros, Counters(counters)), cohort)


def context(weights: dict[int, float], support: dict[int, float], kl: float = 0.1) -> TeacherContext:
    found = [np.zeros(DIMENSION, np.float32) for _ in range(2)]
    for array, values in zip(found, (weights, support), strict=True):
        array[list(values)] = list(values.values())
    return TeacherContext(found[0], found[1], kl)


ONE = context({0: 2.0, 1: 1.0}, {0: 5.0, 1: 3.0}, kl=0.2)
TWO = context({1: -1.0, 2: 4.0}, {1: 1.0, 2: 7.0}, kl=0.4)


def test_contexts_are_drawn_as_often_as_their_devices_played_the_family() -> None:
    mixture = Mixture.weighted([ONE, TWO], [part(9, 0, 0), part(3, 8, 0, cohort=6)], FAMILIES)
    assert mixture.chances.tolist() == [[0.75, 0.25], [0.0, 1.0], [0.25, 0.75]]
    chosen = np.array(mixture.draw(GAMES, range(len(GAMES))))
    assert np.mean(chosen[::2] == 0) == pytest.approx(0.75, abs=0.1)
    assert (chosen[1::2] == 1).all()
    assert chosen.tolist() == mixture.draw(GAMES, range(len(GAMES)))


def test_one_context_is_for_every_game_and_stays_what_it_is() -> None:
    mixture = Mixture.of(ONE)
    assert mixture.draw(GAMES, range(len(GAMES))) == [0] * len(GAMES)
    assert mixture.merged() is ONE and mixture.kl == 0.2


def test_merged_contexts_keep_what_only_one_knows_and_average_where_they_disagree() -> None:
    merged = Mixture.weighted([ONE, TWO], [part(1, 0, 0), part(0, 1, 0)], FAMILIES).merged()
    assert merged.weights[:3].tolist() == pytest.approx([2.0, (3 * 1.0 - 1 * 1.0) / 4, 4.0])
    assert merged.fisher[:3].tolist() == [5.0, 4.0, 7.0]


def episode(place: int) -> Trajectory:
    situation = Memory("Take the coin.", 3).see("-= Hall =-\nA hall.", ("take coin", "go east"), 0)
    turn = Turn(situation, np.log(np.array([0.5, 0.5], np.float32)), 0, 1.0)
    return Trajectory(GAMES[place][0], place, "v", (turn,) * (place + 1), True, False, 1.0)


def counts(chosen: Sequence[int], mixture: Mixture, on_policy: bool = True) -> tuple[int, int, int, int]:
    led = [episode(place) for place in range(len(chosen))]
    policy = TacticsPolicy("v", np.zeros(DIMENSION, np.float32))
    training = list[TrainingTurns]()
    for index in range(len(mixture.contexts)):
        turns = turns_of([t for t, choice in zip(led, chosen, strict=True) if choice == index])
        training.append(TrainingTurns(turns if on_policy else [], turns))
    task = consolidation(load_codec("tactics"), policy, mixture, training, 0)
    assert task.score_offsets is not None
    assert len(task.turns) == len(task.apply_context)
    contexts = [id(context) for context in mixture.contexts]
    drawn = [contexts.index(id(cast(partial[Policy], under).keywords["context"])) for under in task.apply_context]
    return len(task.turns), len(task.targets), len(task.score_offsets), sum(drawn)


def test_every_state_has_the_answer_of_the_teacher_that_was_drawn_for_its_game() -> None:
    mixture = Mixture.weighted([ONE, TWO], [part(1, 1, 0), part(1, 1, 0)], FAMILIES)
    assert counts([0, 1, 1], mixture) == (12, 12, 12, 10)
    assert counts([1, 1, 1], mixture) == (12, 12, 12, 12)
    assert counts([0, 0, 0], Mixture.of(ONE)) == (12, 12, 12, 0)
    assert counts([0, 1, 1], mixture, on_policy=False) == (6, 6, 6, 5)
