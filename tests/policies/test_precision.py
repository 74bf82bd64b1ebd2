from __future__ import annotations

import os
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedoel.codecs.tactics.coordinates import DIMENSION, cells, tilt
from fedoel.policies.torch.base import KEPT_SHAPES, HalfLinear, halve, load_base, pick_precision
from fedoel.policies.torch.model import TorchModel
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.distillation.losses import reverse_kl
from fedoel.server.distillation.opcd import towards, train
from fedoel.server.distillation.optimise import Schedule
from fedoel.server.distillation.training_states import TrainingStates


def config(base: Path) -> PolicyConfig:
    return PolicyConfig(base=str(base), device="cpu", precision="bf16", threads=1, lora_layers=2, lora_rank=4)


def situations() -> list[Situation]:
    # Of one length: the tiny model reads bytes, and to it a longer command is a less likely one.
    commands = ("go e", "take", "look")
    return [Memory("Take the coin.", 5).see(f"-= Room {n} =-\nA room.", commands, 0) for n in range(6)]


def test_a_half_layer_approximates_the_full_one_and_passes_gradients_on() -> None:
    torch.manual_seed(0)
    whole = torch.nn.Linear(64, 32)
    half = HalfLinear.of(whole)
    x = torch.randn(5, 64, requires_grad=True)
    exact, rounded = whole(x), half(x)
    assert rounded.dtype == torch.float32
    assert torch.allclose(rounded, exact, atol=0.02)
    (expected,), (found,) = (torch.autograd.grad(out.sum(), x) for out in (exact, rounded))
    assert torch.allclose(found, expected, atol=0.02)
    assert not any(parameter.requires_grad for parameter in half.parameters())


def test_half_precision_keeps_code_for_few_shapes_unless_somebody_has_said_for_how_many(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    name, few = KEPT_SHAPES
    for said, found in (("7", "7"), (None, few)):
        monkeypatch.setenv(name, said or "")
        if said is None:
            monkeypatch.delenv(name)
        halve(torch.nn.Sequential(torch.nn.Linear(2, 2)))
        assert os.environ[name] == found


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="memory maps are read from /proc")
def test_a_model_in_half_precision_lets_its_file_leave_memory(tiny_base: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(tiny_base, tmp_path / "base")
    kept = {}
    for precision in ("fp32", "bf16"):
        loaded = load_base(replace(config(folder), precision=precision), tmp_path)
        kept[precision] = str(folder) in Path("/proc/self/maps").read_text()
        del loaded
    assert kept == {"fp32": True, "bf16": False}


@pytest.mark.parametrize(
    ("wanted", "features", "picked"),
    [
        ("auto", {"avx512_bf16": True}, "fp32"),
        ("auto", {"amx_bf16": True, "avx512_bf16": False}, "bf16"),
        ("auto", {"avx512_f": True}, "fp32"),
        ("fp32", {"avx512_bf16": True}, "fp32"),
        ("bf16", {}, "bf16"),
    ],
)
def test_auto_is_bfloat16_where_the_cpu_multiplies_it_faster(
    wanted: str, features: dict[str, bool], picked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    assert pick_precision(wanted, torch.device("cpu")) == picked


def test_half_precision_plays_nearly_the_same_and_shares_versions_and_adapters(tiny_base: Path, tmp_path: Path) -> None:
    half = TorchModel(load_base(config(tiny_base), tmp_path), 512)
    whole = TorchModel(load_base(replace(config(tiny_base), precision="fp32"), tmp_path), 512)
    assert (half.base.precision, whole.base.precision) == ("bf16", "fp32")
    rng = np.random.default_rng(0)
    adapter = {name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in whole.fresh.items()}
    assert half.load(adapter) == whole.load(adapter)
    assert all(np.array_equal(half.adapter()[name], array) for name, array in adapter.items())
    pairs = list(zip(half.score(situations()), whole.score(situations()), strict=True))
    assert np.mean([np.abs(a - b).mean() for a, b in pairs]) < 0.05 * np.mean([np.ptp(b) for _, b in pairs])
    assert any(not np.array_equal(a, b) for a, b in pairs)


def test_training_in_half_precision_learns_and_is_repeatable(tiny_base: Path, tmp_path: Path) -> None:
    model = TorchModel(load_base(config(tiny_base), tmp_path), 512)
    model.load({})
    weights = np.zeros(DIMENSION, dtype=np.float32)
    weights[cells(situations()[0])[1]] = 2.0
    scored = zip(model.score(situations()), situations(), strict=True)
    targets = [tilt(log_probs, situation, weights) for log_probs, situation in scored]
    made = []
    for _ in range(2):
        model.load({})
        losses = train(
            TrainingStates.prepare(model, situations()), towards(targets, reverse_kl), Schedule(30, 6, 2e-2), 0
        ).losses
        assert losses[-1] < 0.25 * losses[0]
        made.append(model.adapter())
    assert all(np.array_equal(made[0][name], made[1][name]) for name in made[0])
