from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from fedoel.protocol.play import GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Memory
from fedoel.server.evaluation import summarise
from fedoel.server.gate import Decisions, Differences, Evidence, Trial, Verdict, sample_of


def trial(coin: list[float], cooking: list[float]) -> Trial:
    merits = np.array([*coin, *cooking])
    return Trial(merits, merits > 1, np.array(["coin"] * len(coin) + ["cooking"] * len(cooking)))


def helps(current: Trial, teacher: Trial, choices: Sequence[str] = ()) -> Verdict:
    return Decisions().context_helps(teacher.against(current), choices)


def holds(current: Trial, candidate: Trial) -> Verdict:
    return Decisions().candidate_holds(candidate.against(current))


BEFORE = trial([2, 0, 2, 0], [0, 0, 0, 0])


def test_a_context_without_gain_is_refused() -> None:
    assert not helps(BEFORE, BEFORE).passed
    assert not helps(BEFORE, trial([0, 0, 0, 0], [0, 0, 0, 1])).passed
    assert helps(BEFORE, trial([2, 0, 2, 0], [0, 0, 0, 0.5])).passed


def test_the_best_of_several_must_gain_more_than_luck_gives() -> None:
    after = trial([2, 0, 2, 0], [0, 0, 0, 0.5])
    assert helps(BEFORE, after, ["one"]).passed
    refused = helps(BEFORE, after, ["left, strength 1", "right, strength 1"])
    assert not refused.passed
    assert "with the context (left, strength 1, the best of 2) 25% -> 25%" in refused.reason
    assert helps(BEFORE, trial([2, 2, 2, 2], [0, 0, 0, 0]), ["left", "right"]).passed


def test_a_candidate_that_loses_is_refused_and_the_reason_says_where() -> None:
    assert holds(BEFORE, BEFORE).passed
    assert not holds(BEFORE, trial([0, 0, 0, 0], [0, 0, 0, 0])).passed
    better_and_worse = holds(trial([2] * 6, [0] * 6), trial([0.5] * 6, [2] * 6))
    assert not better_and_worse.passed
    assert "in coin" in better_and_worse.reason


def test_a_difference_within_its_standard_error_is_tolerated() -> None:
    assert holds(BEFORE, trial([2, 2, 0, 0], [0, 0, 0, 0])).passed


def spread(mean: float) -> list[float]:
    """Four differences of this mean, whose standard error is 0.577."""
    return [mean + 1, mean - 1, mean + 1, mean - 1]


@pytest.mark.parametrize(("fall", "passes"), [(0.55, True), (0.6, False)])
def test_a_candidate_may_fall_by_one_standard_error_overall(fall: float, passes: bool) -> None:
    before = trial([0] * 4, [])
    assert holds(before, trial(spread(-fall), [])).passed is passes
    assert helps(before, trial(spread(fall), []), ["left", "right"]).passed is not passes
    assert helps(before, trial(spread(fall), []), ["left"]).passed


@pytest.mark.parametrize(("fall", "passes"), [(1.1, True), (1.2, False)])
def test_a_candidate_may_fall_by_two_standard_errors_in_a_family(fall: float, passes: bool) -> None:
    assert holds(trial([0] * 4, [0] * 4), trial(spread(-fall), [2] * 4)).passed is passes


def test_a_fall_in_the_only_episode_of_a_family_counts() -> None:
    refused = holds(trial([1], [0] * 4), trial([0], [2] * 4))
    assert not refused.passed
    better = holds(trial([2], [0] * 4), trial([0], [2] * 4))
    assert "20% -> 80% of the gate's games are won" in better.reason


def test_merit_is_the_score_plus_one_for_a_win_minus_one_for_a_loss() -> None:
    played = [
        Trajectory(GameSpec("coin", (), 4), 0, "v", (), won, lost, 0.5, 30)
        for won, lost in ((True, False), (False, True), (False, False))
    ]
    found = Trial.of(played)
    assert found.merits.tolist() == [1.5, -0.5, 0.5]
    assert found.won.tolist() == [True, False, False] and found.families.tolist() == ["coin"] * 3


def test_refused_answers_cost_the_share_of_the_turns_that_they_took() -> None:
    situation = Memory("Say where.", 4).see("-= Hall =-\nA hall.", ("east",), 0)
    turns = tuple(Turn(situation, np.zeros(1, np.float32), 0, 0.0, refused=refused) for refused in (True, False))
    played = Trajectory(GameSpec("tidy", (), 4), 0, "v", turns, True, False, 1.0, 30)
    assert Trial.of([played]).merits.tolist() == [2.0]
    assert Trial.of([played], refusal=0.5).merits.tolist() == [1.75]


def test_the_gate_is_sure_of_what_further_games_would_hardly_change() -> None:
    none, gain = trial([0] * 8, []), [0.5, -0.5] * 4
    assert helps(none, trial([0.1, *gain[1:]], [])).sure is False  # a fall within the noise
    assert helps(none, trial([1, *gain[1:]], [])).sure  # passed
    hopeless = helps(none, trial([-1] * 7 + [-0.9], []))
    assert hopeless.sure and not hopeless.passed
    assert not holds(none, trial([-1, -1, 0, 0, 0, 0, 0, 0], [])).sure
    assert holds(none, trial([-1] * 7 + [-0.9], [])).sure
    assert "8 games see a gain of 0.2" in helps(none, trial(gain, [])).reason
    assert "see a gain" not in helps(none, trial([0] * 8, [])).reason


def test_evidence_of_two_blocks_is_that_of_all_their_episodes() -> None:
    def evidence(won: Sequence[bool]) -> Evidence:
        played = [Trajectory(GameSpec("coin", (), 4), 0, "v", (), w, False, float(w), 30) for w in won]
        return Evidence(Trial.of(played), summarise(played))

    whole, parts = evidence([True, False, True, True]), (evidence([True, False]), evidence([True, True]))
    joined = parts[0].with_block(parts[1])
    assert joined.stats == whole.stats and joined.blocks == 2
    assert np.array_equal(joined.sample.arrays()["merits"], whole.sample.arrays()["merits"])
    both = parts[0].sample.against(whole.sample).plus(parts[1].sample.against(parts[0].sample))
    assert both.episodes.tolist() == [4] and both.total.tolist() == [2.0]
    assert evidence([False]).with_block(evidence([True])).stats.turns_per_win is None


def test_samples_are_read_as_they_were_written() -> None:
    differences = trial([2, 0], [1]).against(trial([0, 0], [1]))
    noisy = replace(differences, wins=None, variance=0.25, devices=9.0, fallbacks=2.5)
    for sample in (trial([2, 0], [1]), differences, noisy):
        again = sample_of(sample.arrays()).arrays()
        assert again.keys() == sample.arrays().keys()
        assert all(np.array_equal(again[name], array) for name, array in sample.arrays().items())
    older = sample_of({name: array for name, array in noisy.arrays().items() if name not in ("devices", "fallbacks")})
    assert isinstance(older, Differences) and (older.devices, older.fallbacks, older.variance) == (0, 0, 0.25)


def test_devices_of_several_blocks_add_up() -> None:
    block = replace(trial([2], []).against(trial([0], [])), devices=4.0, fallbacks=1.0)
    both = block.plus(block)
    assert (both.devices, both.fallbacks) == (8, 2)


def test_privacy_noise_is_part_of_the_error_and_so_of_what_the_gate_is_sure_of() -> None:
    clear = trial([1, 0, 1, 0], []).against(trial([0] * 4, []))
    noisy = replace(clear, variance=16.0, wins=None)
    assert noisy.error() == pytest.approx((clear.error() ** 2 + 1) ** 0.5)
    best_of_two = ["left", "right"]
    assert Decisions().context_helps(clear, best_of_two).passed
    assert not Decisions().context_helps(noisy, best_of_two).passed
    lost = replace(noisy, total=-noisy.total)
    assert not Decisions().context_helps(lost).passed and not Decisions().context_helps(lost).sure
    assert "won" not in Decisions().context_helps(noisy).reason
