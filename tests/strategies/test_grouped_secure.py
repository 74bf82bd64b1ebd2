"""Secure sums over groups: a device that lies spoils its group, and a group that stands out is left out."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.privacy.plan import Part, PrivacyPlan
from fedoel.strategies.secure_groups import GroupedSecure
from fedoel.strategies.server_side import ServerSide

SPEC = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin",), 2, 5.0, 20.0)
PLAN = PrivacyPlan.make((Part("gradient", 4, 5.0, 0.8), Part("fisher", 4, 20.0, 0.6)), 30, 20, 0.0)
CENTRE = np.array([1.0, -1.0, 0.5, 0.0])


def strategy(sample: int = 30, max_dropout: float = 0.2, **settings: Any) -> GroupedSecure:
    safeguards = SimpleNamespace(
        sample=lambda spec: sample, colluding=0.3, max_dropout=max_dropout, plan=lambda spec: PLAN
    )
    return GroupedSecure(cast(ServerSide, SimpleNamespace(safeguards=safeguards)), **settings)


def group(scale: float, cohort: int = 3) -> Aggregate:
    parts = {"gradient": scale * cohort * CENTRE, "fisher": abs(scale) * cohort * np.ones(4)}
    return Aggregate(ExperienceVector.from_parts(SPEC, parts), cohort)


def test_groups_are_the_same_in_every_cycle() -> None:
    """Dealt anew, they would give as many equations as there are devices: each device's vector, after some cycles."""
    dealt, rng = strategy(group_size=3), np.random.default_rng(7)
    cohorts = [rng.permutation(12).tolist() for _ in range(16)]
    rows = [[float(node in group) for node in range(12)] for cohort in cohorts for group in dealt.groups(cohort)]
    assert np.linalg.matrix_rank(np.array(rows)) == 4
    assert dealt.groups(cohorts[0]) != dealt.groups(cohorts[1]), "positions within a group are random"
    left = dealt.groups(cohorts[0][:-2])
    assert sorted(map(len, left)) == [3, 3, 4] and sorted(node for group in left for node in group) == sorted(
        cohorts[0][:-2]
    )
    other = strategy(group_size=3, seed=1)
    assert {frozenset(group) for group in other.groups(cohorts[0])} != {
        frozenset(group) for group in dealt.groups(cohorts[0])
    }


def test_a_cohort_is_dealt_into_groups_and_everybody_is_in_one() -> None:
    groups = strategy(group_size=4).groups(list(range(14)))
    assert sorted(map(len, groups)) == [4, 5, 5]
    assert sorted(node for each in groups for node in each) == list(range(14))


def test_groups_that_do_not_clip_are_left_out() -> None:
    kept = strategy().within_norm_bound([group(1.0), group(1.2), group(0.8), group(1.1), group(-40.0), group(300.0)])
    assert [float(each.vector.gradient[0]) for each in kept] == pytest.approx([3.0, 3.6, 2.4, 3.3])


def test_groups_that_have_learned_nothing_do_not_make_those_that_have_stand_out() -> None:
    silent = Aggregate(ExperienceVector.from_parts(SPEC, {}), 3)
    kept = strategy().within_norm_bound([silent, silent, group(1.0), silent, group(1.1), group(-300.0), group(0.9)])
    assert [float(each.vector.gradient[0]) for each in kept] == pytest.approx([0.0, 0.0, 3.0, 0.0, 3.3, 2.7])
    assert strategy().within_norm_bound([silent, silent]) == [silent, silent]


def test_the_rest_is_trimmed_and_stands_for_all_devices_in_it() -> None:
    combined = strategy(beta=0.25)._trimmed([group(1.0), group(1.0, 4), group(1.0), group(-3.0)])
    assert combined.cohort == 13
    assert combined.vector.gradient == pytest.approx(13 * CENTRE, rel=1e-4)


def test_the_plan_of_a_group_is_as_large_as_a_group() -> None:
    plan = strategy(group_size=5).plan(SPEC)
    assert (plan.cohort, plan.minimum, plan.noise_multiplier) == (9, 4, 0.0)


def test_cohorts_of_one_group_and_groups_too_small_to_hide_in_are_refused() -> None:
    with pytest.raises(ConfigError, match="do not make two groups of 4"):
        strategy(sample=7).check(SPEC)
    with pytest.raises(ConfigError, match="group-size must be at least 3"):
        strategy(group_size=2)
    with pytest.raises(ConfigError, match="norm-bound at least 1"):
        strategy(norm_bound=0.5)
    with pytest.raises(ConfigError, match="no threshold"):
        strategy(sample=8, max_dropout=0.8).check(SPEC)
    strategy(sample=8).check(SPEC)


def test_groups_that_point_away_from_what_the_server_learned_itself_are_left_out() -> None:
    own = SimpleNamespace(gradient=CENTRE + 0.1)
    built = strategy(min_likeness=0.0)
    built.server.reference = lambda cycle, exchange: own  # type: ignore[method-assign, assignment, return-value]
    groups = [group(1.0), group(-0.5), group(0.7)]
    assert [float(each.vector.gradient[0]) for each in built._aligned(groups, 1, 1)] == pytest.approx([3.0, 2.1])
    assert strategy()._aligned(groups, 1, 1) == groups
