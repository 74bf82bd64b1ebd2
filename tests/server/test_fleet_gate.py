"""The gate of a server without games: when devices that have gone back to the version before pause promotion."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.experience import Aggregate, total
from fedoel.protocol.trials import WEIGHT, trial_vector
from fedoel.server.fleet_gate import FleetGate
from fedoel.server.gate import Differences, Verdict
from fedoel.server.run_plan import RunPlan

SETTINGS: dict[str, Scalar] = {"games.families": "frozen-lake size=4 turns=6", "server.public": "prompts"}
PRIVATE: dict[str, Scalar] = {"privacy.mechanism": "central", "privacy.epsilon": 2.0, "strategy.name": "central-mean"}


def gate(**settings: Scalar) -> FleetGate:
    config = RunConfig.from_flat({**SETTINGS, **settings})
    return FleetGate(config, RunPlan.of(config), {})


def differences(of: FleetGate, devices: int, fallbacks: int, deviation: float = 0.0) -> Differences:
    """Answers of devices that all win every game with what is tried; `deviation` is of the noise in their count."""
    spec, games = of.spec("v2", "v3"), of.config.trial.games
    merits, won = np.array([[0.0] * games, [2.0] * games]), np.array([[False] * games, [True] * games])
    answers = [trial_vector(spec, ["frozen-lake"] * games, merits, won, d < fallbacks) for d in range(devices)]
    return of.differences(Aggregate(total(answers), devices, (deviation * WEIGHT) ** 2))


def verdicts(of: FleetGate, seen: Differences) -> list[Verdict]:
    return [of.context_helps(seen), of.candidate_holds(seen)]


@pytest.mark.parametrize(("fallbacks", "passed"), [(0, True), (5, True), (6, False), (20, False)])
def test_nothing_is_promoted_while_more_than_a_quarter_has_gone_back(fallbacks: int, passed: bool) -> None:
    fleet = gate()
    for verdict in verdicts(fleet, differences(fleet, 20, fallbacks)):
        assert verdict.passed is passed and verdict.sure and verdict.paused is not passed
        assert passed or verdict.reason == (
            f"{fallbacks} of 20 devices have gone back to the version before: promotion is paused"
        )


def test_the_share_is_a_setting() -> None:
    strict, never = (gate(**{"trial.fallback-share": share}) for share in (0.0, 1.0))
    assert not any(verdict.passed for verdict in verdicts(strict, differences(strict, 20, 1)))
    assert all(verdict.passed for verdict in verdicts(never, differences(never, 20, 20)))


def test_where_only_candidates_are_tried_they_are_refused() -> None:
    fleet = gate(**{"trial.contexts": False})
    context, candidate = verdicts(fleet, differences(fleet, 20, 6))
    assert context.passed and candidate.paused


@pytest.mark.parametrize(("deviation", "paused"), [(2.4, True), (2.6, False)])
def test_with_noise_the_count_must_stand_out_of_it(deviation: float, paused: bool) -> None:
    """30 of 100 are 5 more than a quarter: two standard deviations of 2.5."""
    fleet = gate(**PRIVATE)
    seen = differences(fleet, 100, 30, deviation)
    assert math.isclose(seen.fallbacks, 30, abs_tol=1e-3) and seen.devices == 100
    verdict = fleet.candidate_holds(seen)
    assert verdict.paused is paused and verdict.passed is not paused
    assert not paused or verdict.reason.startswith("about 30 of 100 devices have gone back")


def test_a_block_more_counts_with_the_first_and_a_trial_that_nobody_answers_pauses_nothing() -> None:
    fleet = gate()
    both = differences(fleet, 10, 5).plus(differences(fleet, 10, 0))
    assert fleet.candidate_holds(differences(fleet, 10, 5)).paused and not fleet.candidate_holds(both).paused
    nobody = fleet.candidate_holds(fleet.differences(None))
    assert not nobody.passed and not nobody.paused and not nobody.sure
