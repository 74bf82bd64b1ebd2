"""What a version does outside of games is measured as plain transformers measures it."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig
from fedoel.protocol.versions import Adapter
from fedoel.server.probes.drift import mean_kl
from fedoel.server.probes.perplexity import perplexity
from fedoel.server.probes.states import TEXT, read_text
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.server.torch_learner import TorchLearner


@pytest.fixture
def policy_config(tiny_base: Path) -> PolicyConfig:
    return PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)


def test_perplexity_is_that_of_plain_transformers(tiny_base: Path, policy_config: PolicyConfig, tmp_path: Path) -> None:
    model, text = TorchModel(load_base(policy_config, tmp_path), 64), "The harbour wakes before the town does. " * 4
    ids = torch.tensor([model.tokenizer.ids(text)])
    with torch.no_grad():
        loss = float(AutoModelForCausalLM.from_pretrained(tiny_base)(ids, labels=ids).loss)
    assert perplexity(read_text(model, {}, text), model.base.head) == pytest.approx(math.exp(loss), rel=1e-4)


def test_drift_is_the_mean_kl_that_plain_softmax_gives(policy_config: PolicyConfig, tmp_path: Path) -> None:
    model, text = TorchModel(load_base(policy_config, tmp_path), 64), "The harbour wakes before the town does. " * 4
    rng = np.random.default_rng(0)
    moved = {name: rng.normal(0, 0.3, array.shape).astype(np.float32) for name, array in model.fresh.items()}
    base, student = (read_text(model, adapter, text).states_Td for adapter in ({}, moved))
    p, q = (torch.softmax((states @ model.base.head.T).double(), -1) for states in (student, base))
    expected = float((p * (p / q).log()).sum(-1).mean())
    assert expected > 0.01 and mean_kl(student, base, model.base.head) == pytest.approx(expected, rel=1e-3)
    assert mean_kl(student, student, model.base.head) == 0


def test_an_adapter_is_measured_beside_its_base(policy_config: PolicyConfig, tmp_path: Path) -> None:
    learner = TorchLearner(RunConfig(games=GamesConfig(instructions=True), policy=policy_config), tmp_path)
    learner.load()
    fresh = learner._model().fresh
    rng = np.random.default_rng(0)
    other = {name: rng.normal(0, 0.3, array.shape).astype(np.float32) for name, array in fresh.items()}
    same, moved = learner.probe(fresh), learner.probe(other)
    assert same["perplexity"] == same["base_perplexity"] == moved["base_perplexity"]
    assert same["kl_to_base"] == 0 < 0.01 < moved["kl_to_base"]
    assert abs(moved["perplexity"] - moved["base_perplexity"]) > 0.01
    assert same["instructions"] == same["base_instructions"] == moved["base_instructions"]
    plain = TorchLearner(RunConfig(policy=policy_config), tmp_path).probe(fresh)
    assert set(plain) == {"perplexity", "base_perplexity", "kl_to_base"}
    assert TacticsLearner().probe({}) == {}


def test_a_text_is_read_once_for_a_version(
    policy_config: PolicyConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By the gate, which asks for its drift, and by the report."""
    learner, loaded = TorchLearner(RunConfig(policy=policy_config), tmp_path), list[int]()
    learner.load()
    load = TorchModel.load

    def counted(model: TorchModel, adapter: Adapter) -> None:
        loaded.append(len(adapter))
        load(model, adapter)

    monkeypatch.setattr(TorchModel, "load", counted)
    fresh = learner._model().fresh
    other = {name: array + np.float32(0.1) for name, array in fresh.items()}
    drift = learner.drift(other)
    assert learner.probe(other)["kl_to_base"] == drift == learner.drift(other) > 0
    learner.drift(fresh)
    assert learner.drift(other) == drift and loaded == [0, *[len(other)] * 2]


def test_the_text_is_shipped_and_knows_nothing_of_games() -> None:
    words = TEXT.read_text(encoding="utf-8").lower()
    assert len(words.split()) > 500
    assert not any(word in words for word in ("cookbook", "inventory", "fedoel", "go east"))
