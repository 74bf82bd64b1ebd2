"""The soak: what grows is told from what stays, and a fleet whose devices come, leave, crash and lie goes on."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import soak
from benchmarks.growth import Bound, growth, table

FLAT, KEPT = Bound("size", "memory, MB", 0.01, scale=1000), Bound("size", "a journal", 0.1, kept=True)


def samples(*values: float) -> list[dict[str, float]]:
    return [{"cycle": 10.0 * number, "size": value} for number, value in enumerate(values, 1)]


def test_what_has_to_be_flat_may_grow_in_the_beginning_only() -> None:
    assert growth(FLAT, samples(50e3, 90e3, 99e3, 100e3, 100e3, 100e3, 100e3, 100e3)).allowed
    assert growth(Bound("size", "threads", 0.0), samples(*[2.0] * 9)).allowed
    found = growth(FLAT, samples(*(100e3 + 1e3 * number for number in range(8))))
    assert not found.allowed and found.rise == pytest.approx(10) and found.share == pytest.approx(0.095, abs=0.001)
    assert "GROWS" in table([found]) and "| memory, MB | 100 | 107 | +10 |" in table([found])


def test_what_is_kept_may_grow_as_fast_as_before() -> None:
    assert growth(KEPT, samples(*(7.0 * number for number in range(9)))).allowed
    assert not growth(KEPT, samples(*(number**2 for number in range(9)))).allowed


def test_a_fleet_goes_on_whatever_its_devices_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("EVERY", 1), ("CRASHES", 0.03), ("LIES", 1.0)):
        monkeypatch.setattr(soak, name, value)
    taken = list[int]()
    found = soak.soak(tmp_path, cycles=3, seed=1, took=lambda samples: taken.append(len(samples)))
    assert taken == [1, 2, 3] and sum(found["decisions"].values()) == 3
    assert {"a device was killed", "a device lied", "a device was replaced"} <= found["happened"].keys()
    assert {bound.name for bound in soak.BOUNDS} < found["samples"][0].keys()
    assert found["samples"][0]["log"] < found["samples"][2]["log"]
