"""How far a step may go: the first border of the trust region, from the inside."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.trust_region import CLOSE_ENOUGH, FIRST_SHARE, largest_share


def square(scale: float) -> Callable[[float], float]:
    return lambda share: scale * share**2


@given(st.floats(1e-4, 1e4), st.floats(1e-3, 1.0))
def test_a_step_ends_close_to_the_border_or_is_taken_whole(scale: float, most: float) -> None:
    share, kl = largest_share(square(scale), most)
    assert kl == square(scale)(share) <= most
    assert share == 1.0 or CLOSE_ENOUGH * most <= kl


def test_a_far_place_that_looks_near_again_is_not_reached() -> None:
    # What a soft prompt did: KL rises to the border, and falls where the prompt is noise.
    tried: list[float] = []

    def measure(share: float) -> float:
        tried.append(share)
        return 100 * share**2 if share < 0.3 else 0.01

    share, kl = largest_share(measure, 0.2)
    assert CLOSE_ENOUGH * 0.2 <= kl <= 0.2
    assert share == pytest.approx((kl / 100) ** 0.5) and max(tried) < 0.3


def test_a_step_ends_where_it_adds_less_and_less() -> None:
    # A ray that was measured: KL stays below the bound, and falls from a third of the step on.
    shares = [0, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.75, 1]
    kls = [0, 0.004, 0.006, 0.026, 0.073, 0.109, 0.091, 0.072, 0.073]
    share, kl = largest_share(lambda share: float(np.interp(share, shares, kls)), 0.2)
    assert 0.1 <= share <= 0.3 and kl >= 0.026


def test_a_step_without_effect_is_taken_whole_but_from_a_short_one_outwards() -> None:
    tried: list[float] = []

    def measure(share: float) -> float:
        tried.append(share)
        return 0.0

    assert largest_share(measure, 0.2) == (1.0, 0.0)
    assert tried[0] < 0.01
    assert all(before < after <= 4 * before for before, after in pairwise(tried))


def test_no_step_is_taken_where_every_one_is_too_long() -> None:
    tried: list[float] = []

    def measure(share: float) -> float:
        tried.append(share)
        return 9.0

    assert largest_share(measure, 0.2) == (0.0, 0.0)
    assert max(tried) == FIRST_SHARE and min(tried) < FIRST_SHARE / 1000


def test_what_is_not_a_number_is_outside() -> None:
    share, kl = largest_share(lambda share: 0.1 * share**2 if share < 0.3 else math.nan, 0.2)
    assert 0 < share < 0.3 and kl == pytest.approx(0.1 * share**2)
    assert largest_share(lambda share: math.nan, 0.2) == (0.0, 0.0)
