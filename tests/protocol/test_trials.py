"""The answer to a trial: what it holds, how much one device can say with it, and how small it is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import VectorError
from fedoel.protocol.experience import ROUNDING, ExperienceVector, VectorSpec, total
from fedoel.protocol.health import MOST, SHAPE, Health
from fedoel.protocol.messages import records_bytes, reply_to_records, vector_from_reply
from fedoel.protocol.trials import (
    TrialTerms,
    fallbacks_of,
    health_of,
    is_possible,
    is_trial,
    most_trials,
    parts_of_trial,
    sums_of,
    trial_vector,
)

FAMILIES = ("coin-collector", "cooking", "treasure-hunter")
VERSION = "0123456789abcdef"
TERMS = st.builds(
    TrialTerms,
    games=st.integers(1, 40),
    clip=st.floats(0.01, 100),
    detailed=st.booleans(),
    candidate=st.text("0123456789abcdef", max_size=16),
    health=st.booleans(),
)
AMOUNTS = st.floats(0, 1e6)
HEALTHS = st.builds(Health, AMOUNTS, st.booleans(), st.booleans(), st.none() | AMOUNTS, st.none() | AMOUNTS)
Answer = tuple[VectorSpec, list[str], Any, Any, bool, Health | None]


@st.composite
def answers(draw: st.DrawFn) -> Answer:
    """Terms, at most as many games as they ask for, with families, merits and wins, and how the device is."""
    terms, families = draw(TERMS), FAMILIES[: draw(st.integers(1, 3))]
    games = draw(st.integers(0, terms.games))
    played = draw(st.lists(st.sampled_from(families), min_size=games, max_size=games))
    merits = draw(hnp.arrays(np.float64, (2, games), elements=st.floats(-1e3, 1e3)))
    won = draw(hnp.arrays(np.bool_, (2, games)))
    return terms.spec(VERSION, families), played, merits, won, draw(st.booleans()), draw(st.none() | HEALTHS)


@given(answers())
def test_counts_sums_squares_wins_and_health_come_back(answer: Answer) -> None:
    spec, played, merits, won, fallen_back, health = answer
    vector = trial_vector(*answer)
    terms, found = TrialTerms.of(spec), sums_of(vector)
    assert fallbacks_of(vector) == fallen_back
    counts = health_of(vector)
    assert (counts is not None) == terms.health
    if counts is not None:  # zeros from a device that does not tell
        assert np.array_equal(counts, health.counts() if health else np.zeros(SHAPE))
    differences = np.clip(merits[1] - merits[0], -terms.clip, terms.clip)
    names = np.array(played, dtype=np.str_)
    blocks = [names == family for family in spec.families] if terms.detailed else [np.ones(len(played), bool)]
    for row, members in zip(found, blocks, strict=True):
        columns = differences, differences**2, *([np.ones(len(played)), *won] if terms.detailed else ())
        expected = [float(column[members].sum()) for column in columns]
        # Entries are float32 shares of the largest value, and a sum of differences may cancel.
        assert np.allclose(row / terms.units, np.array(expected) / terms.units, rtol=1e-6, atol=1e-6)


@given(answers())
def test_no_answer_exceeds_the_clipping_norm_not_even_as_it_is_sent(
    answer: Answer,
) -> None:
    """So that nothing is lost by clipping, and the server accepts the half precision that a reply has."""
    spec = answer[0]
    vector = trial_vector(*answer)
    assert np.linalg.norm(vector.gradient.astype(np.float64)) <= spec.clipping_norm * (1 + 1e-6)
    received = vector_from_reply(reply_to_records(vector.clipped()), spec)
    assert np.allclose(received.gradient, vector.gradient, rtol=ROUNDING, atol=1e-6)


def test_the_norm_is_reached_so_that_noise_is_no_larger_than_it_has_to_be() -> None:
    spec = TrialTerms(4, 2.0, True).spec(VERSION, ("coin",))
    merits, won = np.array([[0.0] * 4, [9.0] * 4]), np.ones((2, 4), bool)
    vector = trial_vector(spec, ["coin"] * 4, merits, won, fallen_back=True)
    assert np.linalg.norm(vector.gradient) == pytest.approx(spec.clipping_norm)


@given(HEALTHS)
def test_a_device_is_in_one_class_and_says_little_about_itself(health: Health) -> None:
    counts = health.counts()
    assert counts.shape == SHAPE and set(counts.ravel()) <= {0.0, 1.0} and counts.sum() <= MOST
    assert counts.any(axis=1).sum() == counts[:, 0].sum() == 1


def test_health_adds_three_percent_to_the_noise_of_a_private_run_and_none_where_it_is_not_asked_for() -> None:
    silent, told = (TrialTerms(2, 2.0, False, health=health).spec(VERSION, FAMILIES) for health in (False, True))
    assert 1.03 < told.clipping_norm / silent.clipping_norm < 1.035
    assert silent.vocabulary == "2 2.0 0 " and silent.dimension == 3, "as devices of earlier releases read it"


def test_sums_of_health_are_the_plain_counts() -> None:
    spec = TrialTerms(2, 2.0, False, health=True).spec(VERSION, FAMILIES)
    devices = [
        Health(2.0, True, False, 0.05, 900.0), Health(4.0, False, True, 20.0, 300.0),
        Health(2.9, True, False, None, None), None,
    ]  # fmt: skip
    nothing = np.zeros((2, 0)), np.zeros((2, 0), bool)
    counts = health_of(total(trial_vector(spec, [], *nothing, health=health) for health in devices))
    assert counts is not None
    expected = [[2, 2, 0, 1, 0, 0, 0, 0, 0, 1, 0], [1, 0, 1, 0, 0, 0, 1, 0, 1, 0, 0], [0] * 11]
    assert counts.tolist() == expected


def test_answers_of_several_devices_add_up() -> None:
    spec = TrialTerms(2, 2.0, True).spec(VERSION, FAMILIES[:2])
    merits = [np.array([[0.0, 1.0], [2.0, 1.0]]), np.array([[2.0, 0.0], [1.5, -9.0]])]
    won = [np.array([[False, True], [True, True]]), np.array([[True, False], [False, False]])]
    played = [["coin-collector", "cooking"], ["cooking", "cooking"]]
    vectors = [trial_vector(spec, *answer) for answer in zip(played, merits, won, strict=True)]
    assert np.allclose(sums_of(total(vectors)), np.array([[2, 4, 1, 0, 1], [-2.5, 4.25, 3, 2, 1]]))


@pytest.mark.parametrize("detailed", [False, True])
def test_devices_that_have_gone_back_are_counted(detailed: bool) -> None:
    spec = TrialTerms(2, 2.0, detailed).spec(VERSION, FAMILIES[:2])
    nothing = np.zeros((2, 0)), np.zeros((2, 0), bool)
    vectors = [trial_vector(spec, [], *nothing, fallen_back=device < 7) for device in range(20)]
    assert fallbacks_of(total(vectors)) == 7 and not sums_of(total(vectors)).any()


@given(TERMS, st.integers(1, 3))
def test_terms_are_read_from_their_specification(terms: TrialTerms, families: int) -> None:
    spec = terms.spec(VERSION, FAMILIES[:families])
    assert is_trial(spec) and TrialTerms.of(spec) == terms
    assert VectorSpec.from_json(spec.to_json()) == spec


@pytest.mark.parametrize(
    "change",
    [
        {"codec": "tactics"},
        {"dimension": 6},
        {"dimension": 10},
        {"clipping_norm": 1e6},
        {"fisher_norm": 2.0},
        {"horizon": 2},
        {"families": FAMILIES},
        *(
            {"vocabulary": words}
            for words in (
                "", "2", "2 2.0 1", "2 2.0 1 a b", "2 2.0 1 a health",
                "2 2.0 1 a health health", "two 2.0 1 ", "0 2.0 1 ", "-2 2.0 1 ", "2 0.0 1 ", "2 -2.0 1 ",
                "2 nan 1 ", "2 inf 1 ", "2 1e999 1 ", "2 2.0 2 ", "2 2.0 0 ", "02 2.0 1 ", "2 2 1 ", "2\t2.0\t1\t",
            )
        ),
    ],
)  # fmt: skip
def test_other_specifications_are_refused(change: dict[str, Any]) -> None:
    spec = TrialTerms(2, 2.0, True).spec(VERSION, FAMILIES[:2])
    with pytest.raises(VectorError, match="are not the terms of a trial"):
        TrialTerms.of(replace(spec, **change))


@pytest.mark.parametrize("detailed", [False, True])
@pytest.mark.parametrize("families", [1, 3])
def test_a_reply_has_at_most_300_bytes_beside_the_frames_of_flower(families: int, detailed: bool) -> None:
    """What is counted is the data of the reply's only array: the numbers in float16, behind numpy's header.

    All else are frames: names and types of records, and the hash that names the specification. They do not depend on
    what is sent; how many bytes they take is Flower's matter.
    """
    spec = TrialTerms(2, 2.0, detailed).spec(VERSION, FAMILIES[:families])
    answer = trial_vector(spec, [FAMILIES[0]] * 2, np.array([[0.0, 1.0], [2.0, 0.5]]), np.ones((2, 2), bool), True)
    records = reply_to_records(answer.clipped())
    [array] = records.array_records["experience"].values()
    assert array.dtype == "float16" and len(array.data) == 128 + 2 * spec.size <= 300
    other = reply_to_records(trial_vector(spec, [], np.zeros((2, 0)), np.zeros((2, 0), bool)))
    assert records_bytes(records) == records_bytes(other) < len(array.data) + 600


def test_how_often_a_fleet_may_be_asked_follows_from_the_configuration() -> None:
    prompts = RunConfig.from_flat({
        "server.public": "prompts", "trial.share": 0.25, "trial.contexts": True, "context.halvings": 3,
        "distil.halvings": 2, "clients": 16,
    })  # fmt: skip
    assert parts_of_trial(prompts) == 4
    assert parts_of_trial(replace(prompts, clients=11)) == 2 and parts_of_trial(replace(prompts, clients=3)) == 1
    assert most_trials(prompts) == 4 + 3 + 3 * 4
    assert most_trials(RunConfig.from_flat({"trial.contexts": False, "trial.share": 1.0, "distil.halvings": 0})) == 1
    assert most_trials(RunConfig.from_flat({"server.public": "games"})) == 0


@given(answers(), st.integers(1, 50))
def test_honest_answers_and_their_sums_are_possible_even_in_half_precision(answer: Answer, devices: int) -> None:
    vector = trial_vector(*answer)
    sent = ExperienceVector.from_parts(vector.spec, {"gradient": vector.gradient.astype(np.float16)})
    idle = trial_vector(vector.spec, [], np.zeros((2, 0)), np.zeros((2, 0), bool))
    assert is_possible(sent) and is_possible(total([sent] * devices + [idle]), devices + 1)


LIES = {
    "games below zero": (2, -1.7), "more games than were asked": (2, 0.26), "more wins than games": (4, 1.1),
    "wins below zero": (3, -1.1), "squares below zero": (1, -0.2), "a gain that its squares deny": (0, 0.9),
    "gone back seven times": (-1, 1.7), "gone back less than never": (-1, -0.1),
}  # fmt: skip


@pytest.mark.parametrize("lie", LIES)
@pytest.mark.parametrize("honest", [0, 3])
def test_a_lie_in_one_entry_is_seen_alone_and_in_a_sum(lie: str, honest: int) -> None:
    terms = TrialTerms(2, 3.0, True, "candidate")
    spec = terms.spec(VERSION, FAMILIES[:1])
    truth = trial_vector(spec, ["coin-collector"] * 2, np.zeros((2, 2)), np.ones((2, 2), bool))
    assert is_possible(truth)
    entry, value = LIES[lie]
    told = truth.gradient.copy()
    told[entry] = value * (honest + 1)  # in a sum, what the others send hides a smaller lie
    liar = ExperienceVector.from_parts(spec, {"gradient": told.astype(np.float64)})
    assert not is_possible(total([truth] * honest + [liar]), honest + 1)
