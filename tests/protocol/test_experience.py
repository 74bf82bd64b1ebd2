from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.errors import VectorError
from fedoel.protocol.experience import ROUNDING, Aggregate, ExperienceVector, VectorSpec, clip, total

SPEC = VectorSpec("tactics", 6, "words", "v1", ("coin", "cooking"), 3, 2.0, 4.0)


def vector(seed: int) -> ExperienceVector:
    values = np.abs(np.random.default_rng(seed).normal(size=SPEC.size)).astype(np.float32)
    return ExperienceVector.unchecked(SPEC, values).clipped()


@given(st.integers(0, 10_000))
def test_a_vector_survives_serialisation(seed: int) -> None:
    sent = vector(seed)
    back = ExperienceVector.from_array(SPEC, sent.to_array())
    assert np.array_equal(back.to_array(), sent.to_array())


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.randoms())
def test_a_sum_does_not_depend_on_the_order(seeds: list[int], random: object) -> None:
    vectors = [vector(seed) for seed in seeds]
    shuffled = list(vectors)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.array_equal(total(vectors).to_array(), total(shuffled).to_array())


def test_a_sum_adds_every_number_in_its_place_and_rounds_once() -> None:
    rows_NS = np.arange(3 * SPEC.size, dtype=np.float32).reshape(3, -1)
    rows_NS[:, 0] = 1e30, 1.0, -1e30
    summed = total(ExperienceVector.unchecked(SPEC, row) for row in rows_NS)
    assert summed.gradient.tolist() == [1.0, *rows_NS[:, 1:6].sum(axis=0)]
    assert summed.fisher.tolist() == rows_NS[:, 6:12].sum(axis=0).tolist()
    assert summed.counters.values.ravel().tolist() == rows_NS[:, 12:].sum(axis=0).tolist()


def test_parts_that_are_summed_apart_have_their_own_sizes_and_norms() -> None:
    sent = vector(2)
    parts = sent.parts()
    assert {name: len(part) for name, part in parts.items()} == dict(SPEC.sizes)
    assert np.array_equal(parts["gradient"], sent.gradient) and np.array_equal(parts["fisher"], sent.fisher)
    assert SPEC.norms == {"gradient": SPEC.clipping_norm, "fisher": SPEC.fisher_norm}
    back = ExperienceVector.from_parts(SPEC, parts)
    assert np.array_equal(back.to_array()[:12], sent.to_array()[:12]) and not back.counters.values.any()
    alone = ExperienceVector.from_parts(SPEC, {"gradient": parts["gradient"]})
    assert np.array_equal(alone.gradient, sent.gradient) and not alone.fisher.any()


def test_an_aggregate_is_finite_only_if_its_parts_are() -> None:
    spoilt = ExperienceVector.unchecked(SPEC, np.full(SPEC.size, np.nan, np.float32))
    good = Aggregate(vector(1), 2)
    assert replace(good, parts=(good,)).finite
    assert not Aggregate(spoilt, 2).finite
    assert not replace(good, parts=(good, Aggregate(spoilt, 1))).finite


def broken(change: str) -> np.ndarray:
    array = vector(1).to_array()
    changes: dict[str, np.ndarray] = {
        "short": array[:-1],
        "double": array.astype(np.float64),
        "nan": np.where(np.arange(len(array)) == 3, np.nan, array).astype(np.float32),
        "infinite": np.where(np.arange(len(array)) == 3, np.inf, array).astype(np.float32),
        "loud": np.where(np.arange(len(array)) == 3, 1e6, array).astype(np.float32),
        "negative": np.where(np.arange(len(array)) == 7, -1, array).astype(np.float32),
    }
    return changes[change]


@pytest.mark.parametrize("change", ["short", "double", "nan", "infinite", "loud", "negative"])
def test_malformed_vectors_are_refused(change: str) -> None:
    with pytest.raises(VectorError):
        ExperienceVector.from_array(SPEC, broken(change))


def test_vectors_of_two_versions_cannot_be_added() -> None:
    other = ExperienceVector.unchecked(replace(SPEC, policy_version="v2"), vector(1).to_array())
    with pytest.raises(VectorError, match="different specifications"):
        total([vector(1), other])
    with pytest.raises(VectorError, match="no client"):
        total([])


def test_the_digest_of_a_specification_depends_on_its_fields() -> None:
    assert VectorSpec.from_json(SPEC.to_json()) == SPEC
    assert replace(SPEC, horizon=4).digest != SPEC.digest


@pytest.mark.parametrize(
    "change",
    [
        {"dimension": -1}, {"dimension": 6.0}, {"horizon": 0}, {"families": []}, {"families": [1]}, {"codec": None},
        {"clipping_norm": 0.0}, {"clipping_norm": math.inf}, {"fisher_norm": -1.0}, {"fisher_norm": 4}, {"more": 1},
    ],
    ids=str,
)  # fmt: skip
def test_a_specification_that_cannot_be_is_refused(change: dict[str, object]) -> None:
    with pytest.raises(VectorError):
        VectorSpec.from_json(json.dumps(json.loads(SPEC.to_json()) | change))
    with pytest.raises(VectorError):
        VectorSpec.from_json("{}")


def test_clipping_keeps_the_direction() -> None:
    long = np.array([3.0, 4.0], dtype=np.float32)
    assert np.allclose(clip(long, 1.0), [0.6, 0.8])
    assert clip(long, 5.0) is long


def with_norms(gradient: float, fisher: float) -> np.ndarray:
    """A flat vector with these L2 norms, spread over six coordinates each."""
    lengths = np.repeat([gradient, fisher], SPEC.dimension) / math.sqrt(SPEC.dimension)
    return np.concatenate([lengths, np.zeros(SPEC.size - 2 * SPEC.dimension)]).astype(np.float32)


def test_gradient_and_fisher_diagonal_are_clipped_each_to_its_own_norm() -> None:
    clipped = ExperienceVector.unchecked(SPEC, with_norms(30.0, 50.0)).clipped()
    assert np.allclose(clipped.to_array(), with_norms(SPEC.clipping_norm, SPEC.fisher_norm))
    short = with_norms(1.9, 3.9)
    assert np.array_equal(ExperienceVector.unchecked(SPEC, short).clipped().to_array(), short)


def test_norms_above_the_clipping_norms_are_refused_beyond_rounding() -> None:
    rounded = 1 + ROUNDING / 2
    ExperienceVector.from_array(SPEC, with_norms(SPEC.clipping_norm * rounded, SPEC.fisher_norm * rounded))
    with pytest.raises(VectorError, match="gradient has norm"):
        ExperienceVector.from_array(SPEC, with_norms(SPEC.clipping_norm * 1.01, SPEC.fisher_norm))
    with pytest.raises(VectorError, match="Fisher diagonal has norm"):
        ExperienceVector.from_array(SPEC, with_norms(SPEC.clipping_norm, SPEC.fisher_norm * 1.01))


def test_the_baseline_is_the_mean_return_of_the_episodes_that_reached_a_step() -> None:
    values = np.zeros(SPEC.counters_shape, dtype=np.float32)
    values[0, 5:8], values[0, 8:] = (2.0, 1.0, 0.0), (4.0, 2.0, 0.0)
    flat = np.concatenate([np.zeros(12, np.float32), values.ravel()])
    baseline = ExperienceVector.unchecked(SPEC, flat).counters.baseline()
    assert baseline.tolist() == [[0.5, 0.5, 0.0], [0.0, 0.0, 0.0]]


def test_a_negative_visit_count_is_refused_but_returns_and_scores_may_be_negative() -> None:
    array = np.zeros(SPEC.size, dtype=np.float32)
    shape = SPEC.counters_shape
    for column, fits in ((0, False), (3, False), (4, True), (5, True), (8, False), (10, False)):
        changed = array.copy()
        changed[12:].reshape(shape)[1, column] = -1
        if fits:
            assert ExperienceVector.from_array(SPEC, changed).counters.values[1, column] == -1
        else:
            with pytest.raises(VectorError, match="negative"):
                ExperienceVector.from_array(SPEC, changed)


@given(st.floats(0.1, 1e6), st.integers(0, 1000))
def test_a_clipped_vector_is_always_accepted(scale: float, seed: int) -> None:
    values = (np.abs(np.random.default_rng(seed).normal(size=SPEC.size)) * scale).astype(np.float32)
    clipped = ExperienceVector.unchecked(SPEC, values).clipped()
    back = ExperienceVector.from_array(SPEC, clipped.to_array())
    assert np.linalg.norm(back.gradient) <= SPEC.clipping_norm * (1 + 1e-5)
    assert np.array_equal(back.counters.values, ExperienceVector.unchecked(SPEC, values).counters.values)
