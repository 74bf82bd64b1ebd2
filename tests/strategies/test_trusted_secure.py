"""Secure sums over groups, weighed by how far they point where the server's own experience points."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest

from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.strategies.secure_groups import OUTLYING, TrustedSecure
from fedoel.strategies.secure_mean import Tally
from fedoel.strategies.server_side import ServerSide

SPEC = VectorSpec("tactics", 2, "vocabulary", "v1", ("coin",), 2, 500.0, 2000.0)
OWN = np.array([1.0, 0.0])


def combine(*groups: Aggregate) -> tuple[Aggregate | None, Tally]:
    reference = SimpleNamespace(gradient=OWN)
    rounds = SimpleNamespace(reference=lambda cycle, exchange: reference)
    tally = Tally()
    return TrustedSecure(cast(ServerSide, rounds)).combine(1, list(groups), tally), tally


def group(*gradient: float, fisher: float = 1.0, cohort: int = 3) -> Aggregate:
    """Return a group whose mean device has this gradient and a Fisher diagonal of this length."""
    parts: dict[str, Any] = {
        "gradient": cohort * np.array(gradient), "fisher": cohort * fisher * np.array([0.6, 0.8]),
    }  # fmt: skip
    return Aggregate(ExperienceVector.from_parts(SPEC, parts), cohort)


def test_a_group_counts_by_its_cosine_and_its_devices() -> None:
    found, tally = combine(group(2.0, 0.0), group(1.2, 1.6, cohort=6))
    assert found is not None
    assert found.cohort == 9
    weights = np.array([3 * 1.0, 6 * 0.6])
    mean = weights @ np.array([[2.0, 0.0], [1.2, 1.6]]) / weights.sum()
    assert found.vector.gradient == pytest.approx(9 * mean, rel=1e-5)
    assert found.vector.fisher == pytest.approx(9 * np.array([0.6, 0.8]), rel=1e-5)
    assert not tally.refused


def test_a_group_that_points_the_other_way_does_not_count() -> None:
    found, tally = combine(group(1.0, 0.0), group(-90.0, 5.0, fisher=700.0), group(1.0, 0.0))
    assert found is not None
    assert (found.cohort, tally.refused[OUTLYING]) == (6, 1)
    assert found.vector.gradient == pytest.approx([6.0, 0.0])


def test_a_group_that_is_longer_than_most_is_as_long_as_the_median_group() -> None:
    found, tally = combine(group(1.0, 0.0), group(1.0, 0.0), group(3.0, 0.0, fisher=2.0), group(100.0, 0.0))
    assert found is not None
    assert found.vector.gradient == pytest.approx([9.0, 0.0])
    assert np.linalg.norm(found.vector.fisher) == pytest.approx(9.0, rel=1e-5)
    assert tally.refused[OUTLYING] == 1  # who shouts much louder is not heard at all


def test_nothing_is_learned_where_nobody_is_to_be_trusted() -> None:
    found, tally = combine(group(-1.0, 0.0), group(0.0, 0.0))
    assert found is None
    assert tally.refused[OUTLYING] == 2
