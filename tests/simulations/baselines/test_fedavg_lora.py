"""Federated averaging of adapters by Flower's own strategies, on the loop and the measures of a federation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import ArrayRecord, MetricRecord

from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.games.player import play_episodes
from fedoel.protocol.config import Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GAMES_PER_CLIENT, Turn
from fedoel.protocol.situation import Memory
from fedoel.server.registry import load_adapter
from fedoel.simulations.baselines import averaging_app
from fedoel.simulations.baselines.averaging_app import (
    LARGEST_WEIGHT,
    LocalTask,
    adapter_of,
    arrays_of,
    fitted,
    reply_of,
    weights_of,
)

Runner = Callable[..., dict[str, Any]]
LORA: dict[str, Scalar] = {
    "policy.backend": "torch", "policy.lora-layers": 2, "policy.lora-rank": 4, "policy.device": "cpu",
    "policy.precision": "fp32", "policy.threads": 1, "clients": 2, "cycles": 1, "games.per-client": 2,
    "games.rehearsal": 4, "games.gate": 4, "games.held-out": 4, "warm-start.steps": 2, "distil.batch": 4,
}  # fmt: skip
TIMED = {"seconds", "device_seconds"}


def task(weights: list[float], epochs: int = 30) -> LocalTask:
    """Two commands in one room: to go was chosen in the first turn, to take in the second."""
    situation = Memory("Take the coin.", 5).see("-= Hall =-\nA hall with a coin.", ("go east", "take coin"), 0)
    even = np.log(np.full(2, 0.5, np.float32))
    turns = [Turn(situation, even, action, 0.0) for action in (0, 1)]
    return LocalTask({"weights": np.zeros(DIMENSION, np.float32)}, turns, weights, epochs, 2, 1e-2, 0)


def test_turns_that_went_well_weigh_more_and_none_too_much() -> None:
    low, even, high, huge = weights_of([-0.2, 0.0, 0.2, 9.0], 0.2)
    assert low == pytest.approx(1 / high) and even == 1.0 and huge == LARGEST_WEIGHT


def test_training_makes_what_went_well_as_likely_as_its_weight_says() -> None:
    asked = task([1.0, 3.0])
    (made,) = fitted(TacticsPolicy.from_adapter(asked.adapter, "v"), [asked])
    (found,) = TacticsPolicy.from_adapter(made, "w").score([asked.turns[0].situation])
    # The weighted likelihood is largest where commands are as likely as they weigh.
    assert np.exp(found[1]) == pytest.approx(0.75, abs=0.01) and not asked.adapter["weights"].any()


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAvgM", "FedAdam", "FedMedian", "Krum"])
def test_flowers_strategies_run_unchanged(strategy: str, run: Runner) -> None:
    summary = run(f"fedavg-lora strategy={strategy}")
    first, *rounds = summary["cycles"]
    assert [entry["decision"] for entry in rounds] == ["averaged"] * 2
    assert all(entry["accepted"] == 4 and entry["uplink_bytes"] > 4 * DIMENSION for entry in rounds)
    assert rounds[0]["version"] != first["version"] and rounds[0]["version"] != rounds[1]["version"]
    assert summary["private"] is False and f"fedavg-lora strategy={strategy}" in summary["scenario"]


def test_it_starts_where_a_federation_of_experience_starts(run: Runner) -> None:
    ours, averaged = run(cycles=1), run("fedavg-lora", cycles=1)
    for key in ("version", "held_out", "families"):
        assert ours["cycles"][0][key] == averaged["cycles"][0][key]
    assert ours["floors"] == averaged["floors"]


def test_an_interrupted_average_goes_on_to_the_same_result(run: Runner, tmp_path: Path) -> None:
    whole = run("fedavg-lora")
    shutil.rmtree(tmp_path / "fedavg-lora" / "checkpoints" / "cycle-002")
    again = run("fedavg-lora")
    for entry, other in zip(whole["cycles"], again["cycles"], strict=True):
        assert {k: v for k, v in entry.items() if k not in TIMED} == {k: v for k, v in other.items() if k not in TIMED}


@pytest.mark.parametrize("strategy", ["FedAvg", "FedAdam"])
def test_devices_train_lora_layers_and_the_server_keeps_what_flower_made(
    strategy: str, run: Runner, tiny_base: Path, tmp_path: Path
) -> None:
    summary = run(f"fedavg-lora strategy={strategy} epochs=1", **LORA, **{"policy.base": str(tiny_base)})
    start, end = summary["cycles"]
    versions = tmp_path / "fedavg-lora" / "versions"
    (_, before), (_, after) = (load_adapter(versions / entry["version"]) for entry in (start, end))
    moved = [name for name in before if not np.allclose(before[name], after[name])]
    assert {name: array.shape for name, array in before.items()} == {n: a.shape for n, a in after.items()}
    assert len(moved) > len(before) // 2 and all(np.isfinite(array).all() for array in after.values())
    assert end["accepted"] == 2 and end["uplink_bytes"] > sum(array.nbytes for array in after.values())
    assert end["probes"]["perplexity"] > 0


def test_a_reply_is_what_flower_wants() -> None:
    adapter = {"a": np.ones((2, 3), np.float32)}
    records = reply_of(adapter, 7)
    assert [type(record) for record in records.values()] == [ArrayRecord, MetricRecord]
    wide = arrays_of({"a": np.ones((2, 3), np.float64)})
    assert adapter_of(wide)["a"].dtype == np.float32


def test_the_same_seed_trains_the_same(tiny_base: Path, tmp_path: Path) -> None:
    from fedoel.policies.torch.policy import load_policy
    from fedoel.protocol.config import PolicyConfig

    config = PolicyConfig(
        base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4, batch_tokens=512
    )
    policy = load_policy(config, {}, "", tmp_path)
    asked = replace(task([0.2, 4.0], epochs=4), adapter=policy.model.fresh)
    one, two = fitted(policy, [asked, asked])
    (answered,) = load_policy(config, one, "", tmp_path).score([asked.turns[0].situation])
    (before,) = policy.score([asked.turns[0].situation])
    assert answered[1] > before[1]
    assert all(np.array_equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize(
    ("method", "settings", "says"),
    [
        ("fedavg-lora", {"strategy.name": "secure-mean"}, "not private"),
        ("fedavg-lora", {"privacy.mechanism": "local", "privacy.epsilon": 1.0}, "not private"),
        ("fedavg-lora strategy=FedGuess", {}, "FedGuess"),
        ("fedavg-lora epochs=0", {}, "epochs"),
        ("fedavg-lora", {"policy.backend": "llama"}, "torch"),
        ("fedavg-lora", {"codec.name": "prefix", "policy.backend": "torch"}, "no codec"),
    ],
)
def test_what_cannot_be_averaged_is_refused(method: str, settings: dict[str, Scalar], says: str, run: Runner) -> None:
    with pytest.raises(ConfigError, match=says):
        run(method, **settings)


def without_turns(monkeypatch: pytest.MonkeyPatch, clients: set[int]) -> None:
    """Let the games of some clients be over before the first command."""

    def played(policy: Any, games: Any, seeds: Any, cache: Path) -> Any:
        over = games[0][1] // GAMES_PER_CLIENT in clients
        return [replace(each, turns=()) if over else each for each in play_episodes(policy, games, seeds, cache)]

    monkeypatch.setattr(averaging_app, "play_episodes", played)


@pytest.mark.parametrize("strategy", ["FedAvg", "FedMedian", "FedAdam", "Krum"])
def test_a_client_without_turns_is_not_in_the_mean(strategy: str, run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    without_turns(monkeypatch, {1})
    _, *rounds = run(f"fedavg-lora strategy={strategy}")["cycles"]
    assert [(entry["accepted"], entry["refused"]) for entry in rounds] == [(3, {"client NoTurns": 1})] * 2
    assert rounds[0]["version"] != rounds[1]["version"]


def test_where_no_client_has_turns_the_version_stays(run: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    without_turns(monkeypatch, {0, 1, 2, 3})
    first, *rounds = run("fedavg-lora")["cycles"]
    assert [(entry["accepted"], entry["version"]) for entry in rounds] == [(0, first["version"])] * 2
