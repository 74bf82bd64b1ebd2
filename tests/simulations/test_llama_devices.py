"""A run whose devices play with llama.cpp, while the server trains with torch."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")

from fedoel.protocol.config import (
    CodecConfig,
    ContextConfig,
    DistilConfig,
    GamesConfig,
    PolicyConfig,
    RunConfig,
    ServerConfig,
    WarmStartConfig,
)
from fedoel.protocol.errors import ConfigError
from fedoel.simulations.inprocess import check, run_inprocess

from .gates import OpenGate


@pytest.fixture
def config(tiny_gguf: Path, cache: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        clients=2,
        cycles=2,
        cache=str(cache),
        out=str(tmp_path / "run"),
        games=GamesConfig("frozen-lake turns=6", "iid", per_client=4, rehearsal=4, gate=4, held_out=4),
        policy=PolicyConfig("llama", str(tiny_gguf), "cpu", "fp32", "file", threads=1, lora_layers=2, lora_rank=4),
        context=ContextConfig(max_kl=0.02),
        distil=DistilConfig(steps=2, batch=4),
        warm_start=WarmStartConfig(steps=20, batch=8, learning_rate=1e-2),
        server=ServerConfig("games"),
    )


@pytest.mark.parametrize("codec", ["tactics", "steering"])
def test_devices_on_llama_cpp_send_what_devices_on_torch_would(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: str
) -> None:
    on_llama = replace(config, codec=CodecConfig(name=codec))
    on_torch = replace(on_llama, policy=replace(config.policy, backend="torch"), out=str(tmp_path / "torch"))
    sums = []
    for each in (on_llama, on_torch):
        run_inprocess(each, make_gate=OpenGate)
        summary = json.loads((Path(each.out) / "summary.json").read_text())
        assert [entry["decision"] for entry in summary["cycles"]] == ["warm-start", "promoted", "promoted"]
        assert [entry["refused"] for entry in summary["cycles"]] == [{}, {}, {}]
        with np.load(Path(each.out) / "checkpoints" / "cycle-001" / "context.npz") as kept:
            sums.append(kept["weights"])
    # The first cycle's games are played by one version on both, with draws that rounding rarely changes.
    assert np.corrcoef(sums[0], sums[1])[0, 1] > 0.9


@pytest.mark.parametrize("codec", ["prefix", "tactics-text"])
def test_a_context_in_the_prompt_is_refused(config: RunConfig, codec: str) -> None:
    with pytest.raises(ConfigError, match=rf"codec\.name '{codec}' needs a policy with a prompt"):
        run_inprocess(replace(config, codec=CodecConfig(name=codec)))
    assert not Path(config.out).exists()


def test_what_llama_cpp_cannot_be_given_is_refused(
    config: RunConfig, tiny_base: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = replace(config, policy=replace(config.policy, base=str(tiny_base)))
    with pytest.raises(ConfigError, match="needs a GGUF file"):
        check(folder)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="make setup LLAMA=1"):
        check(config)
