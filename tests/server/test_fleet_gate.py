"""The gate that asks the fleet: what it asks, what it makes of sums, and what it decides on them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.codecs.context import TeacherContext
from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.experience import Aggregate, ExperienceVector
from fedoel.protocol.fleet.membership import keys_folder, load_members
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.privacy.plan import PrivacyPlan
from fedoel.protocol.signing import check_request
from fedoel.protocol.trials import WEIGHT, TrialTerms
from fedoel.server.cycle.contender import Contender, Version
from fedoel.server.cycle.distil import Trained
from fedoel.server.cycle.judge import Judged
from fedoel.server.cycle.mixture import Mixture
from fedoel.server.evaluation import UNKNOWN, combined, stats_of_wins
from fedoel.server.fleet import make_fleet, owner_key
from fedoel.server.fleet_gate import NOBODY, FleetGate, unavailable
from fedoel.server.gate import Differences, Evidence, Verdict
from fedoel.server.run_plan import RunPlan
from fedoel.server.safeguards import RunSafeguards

FAMILIES = ("coin", "tidy")
PARAMETERS = {"whitening": np.ones((2, 2), np.float32)}
CURRENT = Version("v1", {"weights": np.zeros(DIMENSION, np.float32)})
GAIN = [[8.0, 14.0, 10.0, 1.0, 7.0], [2.0, 4.0, 6.0, 3.0, 4.0]]  # by family: sum, squares, games, wins of both


@dataclass
class Fleet:
    """A fleet that answers every trial with the same sums, or not at all; it writes down what it was asked."""

    sums: Any = None
    noise: float = 0.0
    devices: int = 8
    fallbacks: float = 0.0
    asked: list[tuple[PlayRequest, int]] = field(default_factory=list)

    def __call__(self, request: PlayRequest, part: int) -> Aggregate | None:
        self.asked.append((request, part))
        if self.sums is None:
            return None
        entries = np.append(np.array(self.sums) / TrialTerms.of(request.spec).units, self.fallbacks * WEIGHT)
        return Aggregate(ExperienceVector.from_parts(request.spec, {"gradient": entries}), self.devices, self.noise)


Make = Callable[..., tuple[FleetGate, Fleet]]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    def gate(sums: Any = None, noise: float = 0.0, **changed: Scalar) -> tuple[FleetGate, Fleet]:
        config = RunConfig.from_flat({
            "games.families": "coin turns=4; tidy turns=8", "clients": 8, "server.public": "prompts",
            "trial.games": 2, "trial.contexts": True, "trial.share": 1.0, "out": str(tmp_path), **changed,
        })  # fmt: skip
        make_fleet(keys_folder(config), config.clients)
        fleet = Fleet(sums, noise)
        asking = FleetGate(config, RunPlan.of(config), {}).with_fleet(fleet, PARAMETERS)
        assert isinstance(asking, FleetGate)
        return asking, fleet

    return gate


def candidate(name: str = "v2", weight: float = 1.0) -> Contender:
    weights = np.full(DIMENSION, weight, np.float32)
    return Contender({"weights": weights}, (TacticsPolicy(name, weights),))


def teacher(*weights: float) -> Contender:
    contexts = [TeacherContext(np.full(DIMENSION, w, np.float32), np.ones(DIMENSION, np.float32), 0.1) for w in weights]
    mixture = replace(Mixture.of(contexts[0]), contexts=tuple(contexts))
    policies = tuple(TacticsPolicy("v1", context.weights) for context in contexts)
    return Contender(CURRENT.adapter, policies, mixture)


def evidence(gate: FleetGate, contender: Contender, block: int = 1, cycle: int = 3) -> Evidence:
    return gate.evidence(cycle, CURRENT, contender, block, lambda finished: None)


def differences(found: Evidence) -> Differences:
    assert isinstance(found.sample, Differences)
    return found.sample


def test_plain_sums_are_read_by_family(make: Make) -> None:
    gate, _ = make(GAIN)
    found = evidence(gate, candidate())
    seen = differences(found)
    assert seen.families == FAMILIES and seen.variance == 0 and seen.wins is not None
    rows = [seen.total, seen.squares, seen.episodes, *seen.wins]
    assert np.allclose(np.array(rows).T, GAIN, atol=1e-4)
    assert seen.mean() == pytest.approx(10 / 16) and seen.mean(0) == pytest.approx(0.8)
    assert found.blocks == 1 and found.stats.episodes == 16
    assert found.stats.win_rate == pytest.approx(11 / 16, abs=1e-5) and found.stats.low < 11 / 16 < found.stats.high


@pytest.mark.parametrize("contender", [candidate(), teacher(0.5)], ids=["candidate", "context"])
def test_a_part_of_the_fleet_gets_a_signed_request(make: Make, contender: Contender) -> None:
    gate, fleet = make(GAIN, **{"strategy.exchanges": 2})
    for block in (1, 2):
        evidence(gate, contender, block)
    (request, _), (second, part) = fleet.asked
    keys = keys_folder(gate.config)
    assert load_members(keys)[0].identities and (request.cycle, request.exchange, part) == (3, 3, 2)
    check_request(owner_key(keys).public_key().public_bytes_raw(), request)
    assert second.serial > request.serial > 0 and not request.plan and request.baseline is None
    assert request.spec.policy_version == "v1" and request.spec.families == FAMILIES
    assert request.adapter is CURRENT.adapter and request.parameters is PARAMETERS
    terms = TrialTerms.of(request.spec)
    assert (terms.games, terms.clip, terms.detailed) == (2, 2.0, True)
    if contender.contexts:
        assert request.context is contender.contexts.contexts[0].weights
        assert not request.candidate and not terms.candidate
    else:
        assert request.context is None
        assert request.candidate is contender.adapter and terms.candidate == "v2"


NOISE: dict[str, Scalar] = {"privacy.mechanism": "local", "privacy.epsilon": 1e4, "strategy.name": "local-mean"}


def test_noise_is_in_the_error_and_hides_families_and_wins(make: Make) -> None:
    gate, fleet = make([[8.0, 20.0]], noise=0.25, **NOISE)
    found = evidence(gate, candidate())
    seen = differences(found)
    assert len(seen.families) == 1 and seen.wins is None and found.stats == UNKNOWN
    assert seen.episodes.tolist() == [8 * 2]  # who answered is known, and how many games each one plays
    assert seen.total[0] == pytest.approx(8)
    assert seen.variance == pytest.approx(0.25 * (2 * 2.0) ** 2)  # of a sum in units of games times the bound
    spread = (20 - 8**2 / 16) / 15
    assert seen.error() == pytest.approx((spread / 16 + seen.variance / 16**2) ** 0.5)
    request = fleet.asked[0][0]
    assert not TrialTerms.of(request.spec).detailed
    assert PrivacyPlan.from_json(request.plan) == RunSafeguards(gate.config).plan(request.spec)


def test_squares_that_noise_has_made_negative_are_none(make: Make) -> None:
    gate, _ = make([[8.0, -20.0]], noise=0.25, **NOISE)
    seen = differences(evidence(gate, candidate()))
    assert seen.squares.tolist() == [0.0] and 0 < seen.error() < np.inf


@pytest.mark.parametrize("settings", [{}, NOISE], ids=["exact", "noisy"])
def test_what_nobody_has_tried_is_refused_and_could_still_change(make: Make, settings: dict[str, Scalar]) -> None:
    gate, fleet = make(**settings)
    for contender, decide in ((candidate(), gate.candidate_holds), (teacher(1.0), gate.context_helps)):
        found = evidence(gate, contender)
        verdict = decide(differences(found))
        assert (verdict.passed, verdict.sure, verdict.reason) == (False, False, NOBODY)
        assert found.stats == UNKNOWN and found.blocks == 1
    assert len(fleet.asked) == 2
    assert unavailable(fleet.asked[0][0], 1) is None  # type: ignore[func-returns-value]


def test_a_part_that_did_not_answer_changes_nothing_about_the_others(make: Make) -> None:
    gate, fleet = make(GAIN)
    answered = evidence(gate, candidate())
    fleet.sums = None
    both = answered.with_block(evidence(gate, candidate(), 2))
    assert both.blocks == 2 and both.stats.episodes == 16
    assert gate.candidate_holds(differences(both)) == gate.candidate_holds(differences(answered))


def test_nothing_is_asked_about_the_current_version_alone_or_under_an_empty_context(make: Make) -> None:
    gate, fleet = make(GAIN, **{"trial.share": 0.25, "clients": 16})
    alone = Contender(CURRENT.adapter, (TacticsPolicy("v1", CURRENT.adapter["weights"]),))
    for contender in (alone, teacher(0.0)):
        found = evidence(gate, contender)
        assert not differences(found).episodes.any() and found.stats == UNKNOWN
        assert found.blocks == gate.blocks == 4 and gate.episodes == 0
    assert not fleet.asked


def test_several_contexts_at_once_are_refused(make: Make) -> None:
    gate, fleet = make(GAIN)
    with pytest.raises(ConfigError, match=r'several contexts at once need server\.public = "games"'):
        evidence(gate, teacher(0.5, 1.0))
    assert not fleet.asked


def test_without_trials_of_contexts_the_candidate_has_to_gain(make: Make) -> None:
    gate, fleet = make(GAIN, **{"trial.contexts": False})
    found = evidence(gate, teacher(1.0))
    assert not fleet.asked
    assert gate.context_helps(differences(found)).passed
    gain = differences(evidence(gate, candidate()))
    assert len(fleet.asked) == 1
    verdict = gate.candidate_holds(gain)
    assert verdict.passed and "without the context 25% -> 69%" in verdict.reason
    same = replace(gain, total=np.zeros(2), wins=np.ones((2, 2)))
    assert not gate.candidate_holds(same).passed
    with_contexts, _ = make(GAIN)
    assert with_contexts.candidate_holds(same).passed  # there, the context has gained before


@pytest.mark.parametrize(("wins", "games"), [(24.02, 24.0), (-0.02, 3.0), (10_004.0, 10_000.0), (1.0, 0.4), (5.0, 9.6)])
def test_rates_stay_between_none_and_all_whatever_rounding_does(make: Make, wins: float, games: float) -> None:
    """Answers are rounded to half precision, and secure sums to steps: a sum of wins can exceed the number of games."""
    gate, _ = make([[1.0, 1.0, games, 0.0, wins], [0.0] * 5])
    stats = evidence(gate, candidate()).stats
    assert stats.episodes == round(games)
    assert 0 <= stats.low <= stats.win_rate + 1e-9 and stats.win_rate - 1e-9 <= stats.high <= 1
    assert combined([stats, stats]).episodes == 2 * stats.episodes


def with_fallbacks(gate: FleetGate, fleet: Fleet, devices: int, fallbacks: float) -> list[Verdict]:
    """What the gate decides about a context and about a candidate that gain, if so many devices have gone back."""
    fleet.devices, fleet.fallbacks = devices, fallbacks
    context, contender = (differences(evidence(gate, one)) for one in (teacher(1.0), candidate()))
    return [gate.context_helps(context), gate.candidate_holds(contender)]


@pytest.mark.parametrize(("fallbacks", "passed"), [(0, True), (5, True), (5.04, True), (6, False), (20, False)])
def test_nothing_is_promoted_while_more_than_a_quarter_has_gone_back(
    make: Make, fallbacks: float, passed: bool
) -> None:
    for verdict in with_fallbacks(*make(GAIN), 20, fallbacks):
        assert verdict.passed is passed and verdict.sure and verdict.paused is not passed
        assert passed or verdict.reason == (
            f"{fallbacks} of 20 devices have gone back to the version before: promotion is paused"
        )


def test_the_share_that_pauses_promotion_is_a_setting(make: Make) -> None:
    assert all(verdict.paused for verdict in with_fallbacks(*make(GAIN, **{"trial.fallback-share": 0.0}), 20, 1))
    assert all(verdict.passed for verdict in with_fallbacks(*make(GAIN, **{"trial.fallback-share": 1.0}), 20, 20))
    context, contender = with_fallbacks(*make(GAIN, **{"trial.contexts": False}), 20, 6)
    assert context.passed and contender.paused


@pytest.mark.parametrize(("deviation", "paused"), [(2.4, True), (2.6, False)])
def test_with_noise_a_count_of_devices_must_stand_out_of_it(make: Make, deviation: float, paused: bool) -> None:
    """30 of 100 are 5 more than a quarter: two standard deviations of 2.5."""
    gate, fleet = make([[200.0, 400.0]], noise=(deviation * WEIGHT) ** 2, **NOISE)
    for verdict in with_fallbacks(gate, fleet, 100, 30):
        assert verdict.paused is paused and verdict.passed is not paused
        assert not paused or verdict.reason.startswith("about 30 of 100 devices have gone back")


def test_devices_of_all_parts_count(make: Make) -> None:
    gate, fleet = make(GAIN, **{"trial.share": 0.5})
    fleet.fallbacks = 4
    first = evidence(gate, candidate())
    fleet.fallbacks = 0
    both = first.with_block(evidence(gate, candidate(), 2))
    assert gate.candidate_holds(differences(first)).paused and gate.candidate_holds(differences(both)).passed


def test_the_record_shows_what_the_current_version_won_in_this_trial_not_in_the_one_that_made_it(make: Make) -> None:
    gate, _ = make(GAIN)
    earlier = Evidence(gate.differences(None), stats_of_wins(6.0, 8.0))
    judged = Judged(Trained("v2", {}), earlier, evidence(gate, candidate()), Verdict(True, ""))
    assert judged.current_stats == stats_of_wins(1.0 + 3.0, 10.0 + 6.0)
    assert replace(judged, tried=False).current_stats == earlier.stats, "no trial has said more"
