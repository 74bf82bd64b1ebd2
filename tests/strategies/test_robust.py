"""Strategies that see vectors: what a minority can do to them, and that what they give is on the scale of a sum."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.errors import ConfigError, VectorError
from fedoel.protocol.experience import Aggregate, Contribution, Counters, ExperienceVector, VectorSpec
from fedoel.strategies.clustered import Clustered, clusters
from fedoel.strategies.experience import ExperienceStrategy
from fedoel.strategies.mean import Mean
from fedoel.strategies.robust import (
    Krum,
    Median,
    MultiKrum,
    NormBounded,
    TrimmedMean,
    Trusted,
    TrustedTrimmed,
    cosine,
    krum_order,
    trimmed_mean,
)
from fedoel.strategies.server_optimiser import Adam, Momentum
from fedoel.strategies.server_side import ServerSide

SPEC = VectorSpec("tactics", 6, "vocabulary", "v1", ("coin", "lake"), 2, 50.0, 200.0)
HONEST = 16
NOBODY = cast(ServerSide, None)
ROBUST: Mapping[str, Callable[[], ExperienceStrategy]] = {
    "trimmed-mean": lambda: TrimmedMean(NOBODY, beta=0.25),
    "median": lambda: Median(NOBODY),
    "krum": lambda: Krum(NOBODY, num_malicious_nodes=4),
    "multi-krum": lambda: MultiKrum(NOBODY, num_malicious_nodes=4),
}


def contribution(node: int, gradient: Any, fisher: Any = None, family: int = 0) -> Contribution:
    counters = np.zeros(SPEC.counters_shape, np.float32)
    counters[family, 0] = 3
    g = np.asarray(gradient, np.float32)
    f = np.full(6, 2.0, np.float32) if fisher is None else np.asarray(fisher, np.float32)
    return Contribution(node, ExperienceVector(SPEC, g, f, Counters(counters)))


def honest(count: int = HONEST, seed: int = 0) -> list[Contribution]:
    rng = np.random.default_rng(seed)
    centre = np.array([3.0, -2.0, 1.0, 0.5, -1.0, 2.0])
    return [contribution(node, centre + 0.3 * rng.normal(size=6)) for node in range(count)]


def gradient_of(strategy: ExperienceStrategy, contributions: list[Contribution]) -> Any:
    return strategy.aggregate(contributions).vector.gradient


@pytest.mark.parametrize(
    ("build", "deviation"),
    [
        (lambda: Mean(NOBODY), 1e-6), (lambda: NormBounded(NOBODY), 0.1), (ROBUST["trimmed-mean"], 0.1),
        (ROBUST["median"], 0.15), (ROBUST["multi-krum"], 0.15), (ROBUST["krum"], 0.4),
    ],
)  # fmt: skip
def test_honest_vectors_give_about_their_sum(build: Callable[[], ExperienceStrategy], deviation: float) -> None:
    """The L2 norm by which the mean device is off: one device's noise has a norm of 0.7, the centre one of 4.4."""
    aggregate, rows_NS = build().aggregate(honest()), np.stack([each.vector.to_array() for each in honest()])
    assert aggregate.cohort == HONEST
    difference = aggregate.vector.to_array() / HONEST - rows_NS.mean(axis=0)
    assert np.linalg.norm(difference[: SPEC.dimension]) <= deviation
    assert np.allclose(difference[SPEC.dimension :], 0, atol=1e-4)


@pytest.mark.parametrize("name", ROBUST)
@pytest.mark.parametrize("attack", [-10.0, 10.0, 1000.0])
def test_a_fifth_of_the_cohort_cannot_turn_it(name: str, attack: float) -> None:
    bad = [contribution(100 + n, attack * each.vector.gradient) for n, each in enumerate(honest(4, seed=1))]
    clean, spoilt = (gradient_of(ROBUST[name](), group) for group in (honest(), [*honest(), *bad]))
    scaled = spoilt * HONEST / (HONEST + 4)
    assert np.linalg.norm(scaled - clean) < 0.25 * np.linalg.norm(clean)
    assert np.linalg.norm(gradient_of(Mean(NOBODY), [*honest(), *bad]) - clean) > 0.9 * np.linalg.norm(clean)


def test_a_bounded_norm_makes_a_shout_as_loud_as_a_voice() -> None:
    bad = [contribution(100, 1000 * np.ones(6), 1e6 * np.ones(6))]
    spoilt = NormBounded(NOBODY).aggregate([*honest(), *bad]).vector
    clean = NormBounded(NOBODY).aggregate(honest()).vector
    assert np.linalg.norm(spoilt.gradient - clean.gradient) < 1.5 * np.linalg.norm(clean.gradient) / HONEST
    assert np.allclose(spoilt.fisher, clean.fisher * (HONEST + 1) / HONEST)


@given(st.lists(st.floats(-1e3, 1e3), min_size=5, max_size=30), st.floats(0, 0.49))
def test_a_trimmed_mean_lies_among_what_is_kept(values: list[float], beta: float) -> None:
    column = np.array(values)[:, None]
    cut = int(beta * len(values))
    kept = sorted(values)[cut : len(values) - cut]
    assert kept[0] - 1e-9 <= trimmed_mean(column, beta)[0] <= kept[-1] + 1e-9


def test_krum_puts_the_crowd_first() -> None:
    points = np.array([[0.0], [0.1], [0.2], [9.0], [-7.0]])
    order = krum_order(points, 1)
    assert order[0] == 1 and set(order[1:3]) == {0, 2} and order[3:] == [4, 3]
    assert krum_order(points[:1], 0) == [0]


def test_krum_compares_gradients_and_fisher_diagonals_in_clipping_norms() -> None:
    """A Fisher diagonal off by 20 of 200 is nearer than a gradient off by 10 of 50, though its distance is longer."""
    crowd = [(0.0, 2.0), (0.0, 22.0), (10.0, 2.0)]
    chosen = Krum(NOBODY).aggregate([contribution(n, np.full(6, g), np.full(6, f)) for n, (g, f) in enumerate(crowd)])
    assert (chosen.vector.gradient == 0).all()


@pytest.mark.parametrize(
    ("settings", "selected"),
    [({}, 5), ({"num_malicious_nodes": 2}, 3), ({"num_malicious_nodes": 7}, 1), ({"num_nodes_to_select": 2}, 2),
     ({"num_malicious_nodes": 2, "num_nodes_to_select": 9}, 5)],
    ids=str,
)  # fmt: skip
def test_multi_krum_averages_as_many_as_it_is_told(settings: dict[str, int], selected: int) -> None:
    assert MultiKrum(NOBODY, **settings).select(5) == selected


@pytest.mark.parametrize(
    ("other", "expected"), [([6, 8], 1), ([-3, -4], -1), ([-4, 3], 0), ([7, 1], 0.5**0.5), ([0, 0], 0)]
)
def test_the_cosine_of_an_angle(other: list[float], expected: float) -> None:
    assert cosine(np.array([3.0, 4.0]), np.array(other, np.float64)) == pytest.approx(expected)


@pytest.mark.parametrize("norm_bound", [0.5, 1.0, 3.0])
def test_a_norm_is_bounded_by_medians_of_the_cohort_part_by_part(norm_bound: float) -> None:
    first, second = np.eye(6)[0], np.eye(6)[1]
    some = [contribution(n, length * first, 10 * length * second) for n, length in enumerate((1.0, 2.0, 5.0))]
    lengths = np.minimum([1.0, 2.0, 5.0], 2.0 * norm_bound)
    summed = NormBounded(NOBODY, norm_bound=norm_bound).aggregate(some).vector
    assert np.allclose(summed.gradient, lengths.sum() * first) and np.allclose(
        summed.fisher, 10 * lengths.sum() * second
    )


def trusted(own: Any, kind: type[Trusted] = Trusted, **settings: Any) -> Trusted:
    return kind(served(Shelf(own=contribution(0, own).vector)), **settings)


@pytest.mark.parametrize("kind", [Trusted, TrustedTrimmed])
def test_what_points_away_from_the_servers_own_experience_does_not_count(kind: type[Trusted]) -> None:
    own = np.array([3.0, -2.0, 1.0, 0.5, -1.0, 2.0]) + 0.5
    bad = [contribution(100 + node, -50 * each.vector.gradient) for node, each in enumerate(honest(8, seed=1))]
    spoilt = trusted(own, kind).aggregate([*honest(), *bad])
    clean = trusted(own, kind).aggregate(honest())
    assert spoilt.cohort == HONEST + 8
    lost = spoilt.vector.gradient / (HONEST + 8) - clean.vector.gradient / HONEST
    assert np.linalg.norm(lost) < 0.1 * np.linalg.norm(clean.vector.gradient / HONEST)
    with pytest.raises(VectorError, match="no vector has a positive cosine"):
        trusted(own, kind).aggregate(bad)


def test_a_vector_is_bounded_by_the_median_norm_and_counts_by_its_cosine() -> None:
    own, across = np.eye(6)[0], np.eye(6)[0] + np.eye(6)[1]
    some = [contribution(node, gradient) for node, gradient in enumerate([own, across, 10 * own, -own, -20 * across])]
    root = 2**0.5  # the median norm, and the inverse of the second vector's cosine
    expected = 5 * (own + across / root + root * own) / (1 + 1 / root + 1)
    assert np.allclose(trusted(own).aggregate(some).vector.gradient, expected)


def test_trusted_vectors_count_alike_but_for_their_tails() -> None:
    own = np.ones(6)
    near, far, stray = np.ones(6), np.eye(6)[0] + 0.01, np.array([40.0, 1, 1, 1, 1, 1])
    some = [contribution(node, gradient) for node, gradient in enumerate([near, near, far, far, stray])]
    kept = trusted(own, TrustedTrimmed, beta=0.2).aggregate(some).vector.gradient / 5
    assert kept[0] == pytest.approx(1.0, abs=0.01)  # neither the longest nor the shortest says more than the others
    weighted = trusted(own).aggregate(some).vector.gradient / 5
    assert weighted[1] > kept[1] > 0  # who knows something else is weighed down there, and counts in full here
    with pytest.raises(ConfigError, match="beta"):
        trusted(own, TrustedTrimmed, beta=0.5)


def two_camps() -> list[Contribution]:
    rng = np.random.default_rng(3)
    up = np.array([2.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    return [
        contribution(node, (up if node % 2 else -up) + 0.2 * rng.normal(size=6), family=node % 2) for node in range(10)
    ]


def test_devices_that_contradict_each_other_get_contexts_of_their_own() -> None:
    aggregate = Clustered(NOBODY, num_clusters=2).aggregate(two_camps())
    first, second = aggregate.parts
    assert (first.cohort, second.cohort, aggregate.cohort) == (5, 5, 10)
    assert {int(np.argmax(part.vector.counters.episodes)) for part in aggregate.parts} == {0, 1}
    assert np.allclose(first.vector.gradient + second.vector.gradient, aggregate.vector.gradient, atol=1e-5)
    assert np.linalg.norm(first.vector.gradient) > 5 * np.linalg.norm(aggregate.vector.gradient) / 2


def test_a_single_dissenter_makes_no_cluster() -> None:
    some = [*honest(6), contribution(9, -10 * np.ones(6))]
    assert Clustered(NOBODY, num_clusters=2).aggregate(some).parts == ()
    assert len(Clustered(NOBODY, num_clusters=2, min_cluster_size=1).aggregate(some).parts) == 2


def test_clusters_are_found_by_direction_whatever_the_lengths() -> None:
    rng = np.random.default_rng(5)
    truth = np.repeat([0, 1, 2], [7, 3, 4])
    rows_ND = np.eye(4)[truth] + 0.1 * rng.normal(size=(14, 4))
    found = clusters(rows_ND, 3)
    assert all(len({int(label) for label in found[truth == k]}) == 1 for k in range(3)) and len(set(found)) == 3
    assert found[0] == 0, "the first cluster is the one nearest to the mean"
    angles = np.deg2rad([0, 0, 0, 40, 60, 90, 90, 90])
    rows_ND = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    rows_ND[3] *= 100  # which would pull the first centre to itself, and the vector at 60 degrees after it
    assert clusters(rows_ND, 2).tolist() == [0, 0, 0, 0, 1, 1, 1, 1]


def test_devices_of_a_small_cluster_go_to_the_nearest_of_the_others() -> None:
    rows_ND = np.array([[1.0, 0, 0], [1, 0.1, 0], [0, 1, 0], [0.1, 1, 0], [0.0, 0.6, 0.8]])
    first, same, second, too, alone = clusters(rows_ND, 3, min_cluster_size=2).tolist()
    assert first == same != second == too == alone
    assert clusters(np.eye(3), 3, min_cluster_size=2).tolist() == [0, 0, 0]


def test_clusters_stand_what_has_no_direction() -> None:
    assert clusters(np.zeros((4, 3)), 2).tolist() == [0, 0, 0, 0]
    assert clusters(np.eye(3)[:1], 5).tolist() == [0]


def served(rounds: object) -> ServerSide:
    """A server of which only the rounds are asked."""
    return cast(ServerSide, rounds)


@dataclass
class Shelf:
    """Rounds of a server that remembers one aggregate."""

    last: Aggregate | None = None
    safeguards: Any = None
    asked: list[tuple[int, int]] = field(default_factory=list)
    own: ExperienceVector | None = None

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        assert self.own is not None
        return self.own

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        self.asked.append((cycle, exchange))
        return self.last


def cycles(kind: type[ExperienceStrategy], *gradients: float, cohort: int = 4, **settings: Any) -> list[Aggregate]:
    """What a strategy hands on when every device of the cohort sends one number in every place."""
    shelf, found = Shelf(), []
    for cycle, value in enumerate(gradients, start=1):
        strategy = kind(served(shelf), **settings)  # a new one each time, as after a crash
        aggregate = strategy.aggregate([contribution(n, np.full(6, value)) for n in range(cohort)])
        shelf.last = strategy.optimise(aggregate, cycle, 1)
        found.append(shelf.last)
    return found


def test_momentum_is_a_running_mean_of_gradient_and_fisher_alike() -> None:
    found = cycles(Momentum, 1.0, 3.0, 3.0, server_momentum=0.5)
    assert [float(each.vector.gradient[0]) for each in found] == pytest.approx([4.0, 8.0, 10.0])
    assert [float(each.vector.fisher[0]) for each in found] == pytest.approx([8.0, 8.0, 8.0])


def test_momentum_is_on_the_scale_of_the_cohort_that_answered() -> None:
    shelf = Shelf(cycles(Momentum, 1.0, cohort=4)[0])
    strategy = Momentum(served(shelf), server_momentum=0.5)
    small = strategy.aggregate([contribution(0, np.full(6, 1.0))])
    assert float(strategy.optimise(small, 2, 1).vector.gradient[0]) == pytest.approx(1.0)


def test_adam_divides_by_the_root_of_the_second_moment() -> None:
    first, second = cycles(Adam, 1.0, -3.0, beta_1=0.5, beta_2=0.5)
    assert (float(first.vector.gradient[0]), float(first.vector.fisher[0])) == pytest.approx((4.0, 4.0))
    assert float(second.vector.gradient[0]) == pytest.approx(0.5 * 4 - 0.5 * 12)
    assert float(second.vector.fisher[0]) == pytest.approx(np.sqrt(0.5 * 16 + 0.5 * 144))


def noised(value: float, cohort: int, noise: float) -> Aggregate:
    """The sum of a cohort whose devices all send one number in every place."""
    summed = Mean(NOBODY).aggregate([contribution(node, np.full(6, value)) for node in range(cohort)])
    return replace(summed, noise=noise)


def test_adam_is_on_the_scale_of_the_cohort_that_answered() -> None:
    before = noised(1.0, 2, 0.0)  # its sum is 2, and its Fisher diagonal 4
    strategy = Adam(served(Shelf(before)), beta_1=0.25, beta_2=0.75)
    after = strategy.optimise(noised(3.0, 4, 0.0), 2, 1).vector
    assert float(after.gradient[0]) == pytest.approx(0.25 * 2 * 2 + 0.75 * 12)
    assert float(after.fisher[0]) == pytest.approx(np.sqrt(0.75 * (2 * 4) ** 2 + 0.25 * 12**2))
    first = Adam(served(Shelf())).optimise(noised(-3.0, 4, 0.0), 1, 1).vector
    assert float(first.fisher[0]) == 12


@pytest.mark.parametrize(("kind", "settings"), [(Momentum, {"server_momentum": 0.25}), (Adam, {"beta_1": 0.25})])
def test_the_noise_of_a_running_mean_is_that_of_what_is_mixed(
    kind: type[ExperienceStrategy], settings: dict[str, Any]
) -> None:
    strategy = kind(served(Shelf(noised(1.0, 2, 8.0))), **settings)
    assert strategy.optimise(noised(1.0, 4, 16.0), 2, 1).noise == pytest.approx(0.75**2 * 16 + (0.25 * 2) ** 2 * 8)


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        (TrimmedMean, {"beta": 0.5}),
        (TrimmedMean, {"beta": -0.1}),
        (Krum, {"num_malicious_nodes": -1}),
        (MultiKrum, {"num_nodes_to_select": -1}),
        (NormBounded, {"norm_bound": 0.0}),
        (Clustered, {"num_clusters": 0}),
        (Clustered, {"exchanges": 2}),
        (Momentum, {"server_momentum": 1.0}),
        (Adam, {"beta_2": 1.0}),
    ],
)
def test_options_out_of_range_are_refused(kind: type[ExperienceStrategy], settings: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        kind(NOBODY, **settings)
