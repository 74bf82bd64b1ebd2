"""Fleet health on the server: rates with intervals, the noise in them, and what is said where it hides everything."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.config import RunConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector
from fedoel.protocol.health import MACHINE, SHAPE, Health
from fedoel.protocol.records.json_codec import from_json, to_json
from fedoel.protocol.records.summary import CycleRecord, FleetHealth
from fedoel.protocol.trials import HEALTH_WEIGHT, trial_vector
from fedoel.server.evaluation import UNKNOWN, wilson
from fedoel.server.fleet_gate import FleetGate
from fedoel.server.gate import Differences, sample_of
from fedoel.server.health import HEAD, TOO_NOISY, fleet_health, interval, number_words, pooled, rate_words, rows
from fedoel.server.operate.status import health as status_of
from fedoel.server.run_plan import RunPlan
from fedoel.server.safeguards import RunSafeguards

NOTHING = np.zeros((2, 0)), np.zeros((2, 0), bool)


def told(answers: float, died: float, deviation: float = 0.0) -> FleetHealth:
    """The counts of a fleet all of whose devices are in the first class, fast and small."""
    counts = np.zeros(SHAPE)
    counts[0] = [answers, died, 0, answers, 0, 0, 0, answers, 0, 0, 0]
    return fleet_health(counts, deviation**2)


def record(cycle: int, health: FleetHealth | None) -> CycleRecord:
    return CycleRecord(
        cycle=cycle, version="v", decision="promoted", reason="", held_out=UNKNOWN, families={}, teacher=None,
        gate=None, lessons=(), kl=0.0, uplink_bytes=0, downlink_bytes=0, accepted=0, refused={}, adapter_bytes=0,
        seconds={}, health=health,
    )  # fmt: skip


@given(st.integers(1, 10_000), st.floats(0, 1))
def test_without_noise_the_interval_is_the_score_interval(answers: int, share: float) -> None:
    count = round(share * answers)
    assert interval(count, answers, 0.0) == pytest.approx(wilson(count, answers), abs=1e-6)


@given(st.floats(-1e3, 1e3), st.floats(-1e3, 1e3), st.floats(0, 1e6))
def test_an_interval_is_within_zero_and_one_and_in_order(count: float, answers: float, variance: float) -> None:
    low, high = interval(count, answers, variance)
    assert 0 <= low <= high <= 1 and rate_words(count, answers, variance)


@pytest.mark.parametrize(("rate", "deviation"), [(0.02, 6.0), (0.3, 6.0), (0.3, 40.0), (0.9, 20.0)])
def test_intervals_hold_in_nineteen_cases_of_twenty_with_all_noise(rate: float, deviation: float) -> None:
    rng = np.random.default_rng(1)
    counts = rng.binomial(300, rate, 2000) + deviation * rng.normal(size=2000)
    answers = 300 + deviation * rng.normal(size=2000)
    bounds = np.array([interval(*pair, deviation**2) for pair in zip(counts, answers, strict=True)])
    assert ((bounds[:, 0] <= rate) & (rate <= bounds[:, 1])).mean() > 0.935


def test_words_are_exact_about_a_bound_or_too_noisy() -> None:
    assert rate_words(1, 12, 0.0) == "1 of 12 (1-35 %)" and rate_words(0, 0, 0.0) == "-"
    assert rate_words(41, 410, 36.0) == "about 10 % (6-14 %)"
    assert rate_words(40, 50, 36.0) == "at least 50 %"
    assert rate_words(2, 40, 36.0) == rate_words(5, 3, 36.0) == TOO_NOISY
    numbers = (12, 0.0), (410, 36.0), (-3, 36.0)
    assert [number_words(*pair) for pair in numbers] == ["12", "about 410 (398-422)", "at most 9"]


def test_cycles_are_added_up_with_their_noise_and_shown_in_the_status() -> None:
    both = pooled([told(300, 30, 3.0), told(100, 10, 4.0)])
    assert both == told(400, 40, 5.0) and from_json(FleetHealth, to_json(both)) == both
    assert [row[0] for row in rows(told(9, 1))] == [MACHINE.names[0], "all"]  # the other classes have no device
    assert len(rows(both)) == len(MACHINE.names) + 1
    lines = status_of([record(0, None), record(1, told(7, 0)), record(2, told(9, 1)), record(3, None)])
    assert lines[0].startswith("health: of cycle 2.") and "noise" not in lines[0] and len(lines) == 6
    for part in ("answers 9", "died 1 of 9 (2-43 %)", "time per turn below 0.1 s: 9 of 9", f"{HEAD[3]} 0 of 9"):
        assert part in lines[1]
    assert "cycles 1 to 2" in lines[3] and "died 1 of 16" in lines[4]
    [head, *classes] = status_of([record(1, told(7, 0, 9.0))])
    assert "the noise of privacy included" in head and all(TOO_NOISY in line for line in classes)
    assert status_of([record(1, None)]) == []


def gate_of(tmp_path: Path, **settings: str | float) -> FleetGate:
    config = RunConfig.from_flat({
        "games.families": "tidy things=1 final=0 turns=8", "clients": 12, "trial.health": True, "trial.share": 1.0,
        "out": str(tmp_path), **settings,
    })  # fmt: skip
    return FleetGate(config, RunPlan.of(config), {})


def test_the_gate_reads_keeps_and_adds_up_what_devices_say(tmp_path: Path) -> None:
    gate = gate_of(tmp_path)
    spec = gate.spec("v1", "v2")
    vector = trial_vector(spec, [], *NOTHING, health=Health(8.0, True, False, 0.5, 100.0))
    seen = gate.differences(Aggregate(vector, 1))
    again = sample_of(seen.arrays())
    assert isinstance(again, Differences) and again.health is not None and again.fallbacks == 0
    twice = seen.plus(again).health
    assert twice is not None and twice.sum() == 8 and twice[1, :3].tolist() == [2, 2, 0]
    silent = replace(gate, config=replace(gate.config, trial=replace(gate.config.trial, health=False)))
    older = silent.differences(Aggregate(ExperienceVector.from_parts(silent.spec("v1", "v2"), {}), 1))
    assert older.health is None and "health" not in older.arrays() and older.plus(older).health is None


def test_the_noise_in_every_count_is_that_of_the_plan(tmp_path: Path) -> None:
    noisy: dict[str, str | float] = {
        "privacy.mechanism": "distributed",
        "privacy.epsilon": 8.0,
        "strategy.name": "secure-mean",
    }
    gate = gate_of(tmp_path, **noisy)
    spec, devices = gate.spec("v1", "v2"), 4
    plan = RunSafeguards(gate.config).plan(spec)
    assert plan.noise_multiplier > 0.3 and spec.dimension == 3 + SHAPE[0] * SHAPE[1]
    vector = trial_vector(spec, [], *NOTHING, health=Health(8.0, True, False, 0.5, 100.0))
    below = Random(0).randrange
    sums = [sum(plan.encode(vector.parts(), below) for _ in range(devices)) for _ in range(6)]
    noise = plan.variance("gradient", devices)
    errors, variances = [], []
    for cells in sums:
        parts = plan.decode(np.asarray(cells).astype(np.uint64))
        seen = gate.differences(Aggregate(ExperienceVector.from_parts(spec, parts), devices, noise))
        trial = gate.config.trial
        assert seen.health is not None
        variances.append(seen.variance / (trial.games * trial.clip * HEALTH_WEIGHT) ** 2)
        errors.append(seen.health - devices * Health(8.0, True, False, 0.5, 100.0).counts())
    # 6 sums of 33 counts: the deviation of their errors is known to 5 %.
    assert np.std(errors) == pytest.approx(variances[0] ** 0.5, rel=0.15)
    assert abs(np.mean(errors)) < 4 * variances[0] ** 0.5 / len(np.ravel(errors)) ** 0.5
