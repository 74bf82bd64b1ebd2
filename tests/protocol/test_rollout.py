"""Who a version reaches in which stage: stages nest, other versions begin elsewhere, and somebody is always reached."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.rollout import reached, stages_of

FLEET = range(10_000)
DEVICES = st.lists(st.integers(0, 2**64), min_size=1, max_size=30, unique=True)
SHARES = st.floats(1e-6, 1.0)


@given(DEVICES, st.text(max_size=8), SHARES, SHARES, st.integers(1, 5))
def test_a_larger_stage_has_all_devices_of_a_smaller_one(
    devices: list[int], version: str, one: float, other: float, least: int
) -> None:
    small, large = (reached(devices, version, share, least) for share in sorted((one, other)))
    assert set(small) <= set(large) and len(small) >= min(least, len(devices))
    assert reached(devices, version, 1.0, least) == devices
    assert small == [device for device in devices if device in small], "in their order"


@given(DEVICES, st.text(max_size=8), SHARES, st.data())
def test_a_device_that_a_share_reaches_is_reached_whoever_else_is_there(
    devices: list[int], version: str, share: float, data: st.DataObject
) -> None:
    there = data.draw(st.lists(st.sampled_from(devices), unique=True))
    assert set(reached(there, version, share, 0)) == set(reached(devices, version, share, 0)) & set(there)


def test_stages_have_their_shares_and_versions_begin_with_other_devices() -> None:
    first, second = (set(reached(FLEET, version, 0.1, 1)) for version in ("v1", "v2"))
    assert 900 < len(first) < 1100 and len(first & second) < 200
    assert len(reached(FLEET, "v1", 1e-9, 1)) == 1


def test_stages_are_shares_that_increase_to_one() -> None:
    assert stages_of("0.01 0.1 1.0") == (0.01, 0.1, 1.0) and stages_of(RunConfig().rollout.stages) == (1.0,)
    for text in ("", "0.1", "0 1", "0.5 0.1 1", "0.1 0.1 1", "1 1", "nan 1", "a tenth", "0.1, 1", "0.1 2", "-1 1"):
        with pytest.raises(ConfigError, match=r"rollout.stages must be shares that increase to 1"):
            RunConfig.from_flat({"rollout.stages": text})


def test_noise_is_not_computed_for_a_part_of_the_fleet() -> None:
    private: dict[str, Scalar] = {"privacy.mechanism": "distributed", "privacy.epsilon": 8.0}
    RunConfig.from_flat({**private, "rollout.stages": "1"})
    with pytest.raises(ConfigError, match=r'set rollout.stages = "1"'):
        RunConfig.from_flat({**private, "rollout.stages": "0.1 1"})
