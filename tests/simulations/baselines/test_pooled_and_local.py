"""Pooled and local-only runs: the fleet's own games, vectors and measures, gathered otherwise."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.summary import Stats
from fedoel.simulations.baselines.baseline import load_baseline
from fedoel.simulations.baselines.local_only import mean_stats

Runner = Callable[..., dict[str, Any]]
Reader = Callable[[str], NDArray[np.float32]]


def test_pooled_encodes_the_games_of_the_fleet_against_one_baseline(run: Runner, vector: Reader) -> None:
    federated, pooled = run(), run("pooled")
    together, one_place = vector("federated"), vector("pooled")
    # The same turns: Fisher diagonal and counters are the fleet's. The gradient has another baseline.
    # Each of the fleet's vectors was rounded to half precision on its way, and their sum was not.
    assert np.allclose(one_place[DIMENSION:], together[DIMENSION:], rtol=1e-3, atol=1e-4)
    assert not np.allclose(one_place[:DIMENSION], together[:DIMENSION], atol=1e-3)
    assert pooled["cycles"][0]["held_out"] == federated["cycles"][0]["held_out"]
    assert pooled["cycles"][1]["uplink_bytes"] > 1000 and pooled["scenario"].endswith("pooled")


def test_pooled_clips_nothing(run: Runner, vector: Reader) -> None:
    run("pooled", **{"codec.clipping-norm": 0.01})
    assert np.linalg.norm(vector("pooled")[:DIMENSION]) > 0.05


def test_clients_that_are_alone_play_what_they_play_in_the_fleet(run: Runner, vector: Reader, tmp_path: Path) -> None:
    run()
    summary = run("local-only")
    alone = np.stack([vector(f"local-only/client-{client}") for client in range(4)])
    assert np.allclose(alone.sum(axis=0), vector("federated"), rtol=1e-4, atol=1e-4)
    assert summary["cycles"][1]["accepted"] == 4 and summary["cycles"][1]["uplink_bytes"] == 0
    # Everybody is measured on all families, whatever it has played.
    assert set(summary["cycles"][2]["families"]) == {"frozen-lake", "sokoban"}
    assert summary["cycles"][2]["held_out"]["episodes"] == 8
    assert summary["cycles"][2]["device_seconds"] > 0


def test_a_local_run_goes_on_where_it_stopped(run: Runner, tmp_path: Path) -> None:
    whole, folder = run("local-only"), tmp_path / "local-only"
    (folder / "summary.json").unlink()
    shutil.rmtree(folder / "client-2" / "checkpoints" / "cycle-002")
    shutil.rmtree(folder / "client-3")
    again = run("local-only")
    for entry, other in zip(whole["cycles"], again["cycles"], strict=True):
        timed = {"seconds", "device_seconds"}
        assert {k: v for k, v in entry.items() if k not in timed} == {k: v for k, v in other.items() if k not in timed}


def test_a_mean_of_clients_is_that_of_their_rates_and_costs() -> None:
    low = Stats(win_rate=0.2, low=0, high=1, episodes=10, score=0.5, turns_per_win=20.0, tokens_per_win=None)
    mean = mean_stats([low, replace(low, win_rate=0.8, turns_per_win=5.0)])
    assert mean.win_rate == pytest.approx(0.5) and mean.turns_per_win == pytest.approx(8 / 1.0)
    assert mean.low < 0.5 < mean.high and mean.episodes == 10 and mean.tokens_per_win is None


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("pooled", {"strategy.name": "secure-mean"}, "not private"),
        ("local-only", {"privacy.mechanism": "central", "privacy.epsilon": 1.0}, "not private"),
        ("local-only", {"strategy.exchanges": 2}, "exchanges 1"),
        ("pooled", {"codec.name": "text", "privacy.allow-plaintext": True, "policy.backend": "torch"}, "vectors"),
        ("pooled", {"games.families": "no-such-game turns=3"}, "no-such-game"),
        ("together", {}, "no baseline 'together'"),
        ("pooled size=3", {}, "unknown option"),
    ],
)
def test_what_a_baseline_cannot_do_is_refused(method: str, settings: dict[str, Scalar], says: str, run: Runner) -> None:
    with pytest.raises(ConfigError, match=says):
        run(method, **settings)


def test_the_fleet_itself_is_the_first_of_the_baselines(tmp_path: Path) -> None:
    config = RunConfig.from_flat({"out": str(tmp_path), "policy.backend": "tactics"})
    assert load_baseline("federated").check(config) == config
