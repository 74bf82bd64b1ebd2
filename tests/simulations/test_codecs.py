"""Whole cycles with every codec, on a tiny random model: that the parts fit, not that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.config import (
    CodecConfig,
    ContextConfig,
    DistilConfig,
    GamesConfig,
    PolicyConfig,
    RunConfig,
    StrategyConfig,
    WarmStartConfig,
)
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.soft_prompt import DIMENSION
from fedoel.server import cycle
from fedoel.server.gate import Trial, Verdict
from fedoel.simulations.inprocess import run_inprocess


def passes(before: Trial, after: Trial) -> Verdict:
    """A random model gains nothing, so the gate's verdict is given."""
    return Verdict(True, "as the test wants it")


@pytest.fixture
def config(tiny_base: Path, cache: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        clients=2,
        cycles=1,
        cache=str(cache),
        out=str(tmp_path / "run"),
        games=GamesConfig("frozen-lake turns=6", "iid", per_client=8, rehearsal=6, gate=4, held_out=4),
        policy=PolicyConfig(base=str(tiny_base), device="cpu", threads=1, lora_layers=2, lora_rank=4),
        codec=CodecConfig(name="prefix"),
        context=ContextConfig(max_kl=0.02),
        strategy=StrategyConfig(exchanges=2),
        distil=DistilConfig(steps=2, batch=4),
        warm_start=WarmStartConfig(steps=40, batch=8, learning_rate=1e-2),
    )


def summary(out: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((out / "summary.json").read_text())["cycles"]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.parametrize("name", ["prefix", "steering"])
def test_a_cycle_inside_the_model_repeats_and_stays_in_its_trust_region(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = replace(config, codec=CodecConfig(name=name))
    monkeypatch.setattr(cycle, "context_helps", passes)
    monkeypatch.setattr(cycle, "candidate_holds", passes)
    run_inprocess(config)
    last = summary(Path(config.out))[-1]
    assert (last["decision"], last["accepted"], last["lessons"]) == ("promoted", 2, [])
    assert 0 < last["uplink_bytes"] <= 4096
    # Two steps of 0.02 nats, the second from where the first ended: no further than four times one of them.
    assert 0.005 < last["kl"] < 0.1
    with np.load(Path(config.out) / "checkpoints" / "cycle-001" / "context-2.npz") as kept:
        assert np.count_nonzero(kept["weights"]) > DIMENSION / 2
    run_inprocess(replace(config, out=str(tmp_path / "again")))
    assert summary(tmp_path / "again") == summary(Path(config.out))


def test_a_cycle_with_tactics_in_words(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cycle, "context_helps", passes)
    monkeypatch.setattr(cycle, "candidate_holds", passes)
    run_inprocess(replace(config, codec=CodecConfig(name="tactics-text"), context=ContextConfig(max_kl=0.3)))
    last = summary(Path(config.out))[-1]
    assert (last["decision"], last["accepted"]) == ("promoted", 2)
    assert last["lessons"]
    assert set(last["views"]) == {"without_context"}


@pytest.mark.parametrize(
    "change", [{"policy": PolicyConfig(backend="tactics")}, {"distil": DistilConfig(retention=0.5)}], ids=str
)
def test_what_a_soft_prompt_cannot_do_is_refused(config: RunConfig, change: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=r"codec\.name 'prefix' needs"):
        run_inprocess(replace(config, **change))
    assert not Path(config.out).exists()
