"""The anchor: nothing for the base model, something for every other, and it keeps a general text likely."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel, load_model
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.situation import Memory
from fedoel.server.distillation import anchor as module
from fedoel.server.distillation.anchor import ANSWERS, BATCH, LENGTH, REQUESTS, TEXT, Anchor
from fedoel.server.distillation.losses import reverse_kl
from fedoel.server.distillation.opcd import towards, train
from fedoel.server.distillation.optimise import Schedule
from fedoel.server.distillation.training_states import TrainingStates
from fedoel.server.probes.instructions import load_instructions
from fedoel.server.probes.perplexity import perplexity
from fedoel.server.probes.states import TEXT as MEASURED
from fedoel.server.probes.states import read_text

SENTENCES = "A river does not choose its bed, but it keeps it. " * 8


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> TorchModel:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    return TorchModel(load_base(config, tmp_path), 512)


def divergence(anchor: Anchor) -> float:
    return float(anchor.loss(np.random.default_rng(0)).detach())


def test_the_base_model_is_anchored_already_and_others_are_not(model: TorchModel) -> None:
    anchor, rng = Anchor.prepare(model, SENTENCES), np.random.default_rng(0)
    assert abs(divergence(anchor)) < 1e-6
    model.load({name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in model.fresh.items()})
    assert divergence(anchor) > 0.01
    weights = [parameter for parameter in model.base.model.parameters() if parameter.requires_grad]
    gradients = torch.autograd.grad(anchor.loss(rng), weights, allow_unused=True)
    assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients)


def test_an_anchored_student_learns_and_stays_closer_to_the_base(model: TorchModel) -> None:
    states = [
        Memory(f"Take coin {n}.", 5).see(f"-= Room {n} =-\nA room.", ("go e", "go n", "take", "look"), 0)
        for n in range(8)
    ]
    targets = [np.log(np.array([0.01, 0.01, 0.97, 0.01], dtype=np.float32)) for _ in states]
    anchor = Anchor.prepare(model, SENTENCES)
    text = SENTENCES.replace("river", "mason")
    base = perplexity(read_text(model, {}, text), model.base.head)
    left, losses = [], []
    for kept in (None, anchor):
        model.load({})
        schedule = Schedule(40, 8, 2e-2, anchor=3.0)
        losses.append(
            train(TrainingStates.prepare(model, states), towards(targets, reverse_kl), schedule, 0, anchor=kept).losses
        )
        left.append(abs(np.log(perplexity(read_text(model, model.adapter(), text), model.base.head) / base)))
    assert losses[1][-1] < 0.3 * losses[1][0]
    assert left[1] < 0.5 * left[0]


def test_answers_are_compared_where_the_model_answers(model: TorchModel) -> None:
    requests = ["Say hello.", "What is a river?"]
    passages, answers = Anchor.prepare(model, SENTENCES, requests).groups
    assert all(len(passage.top) == len(passage.bottom) == LENGTH for passage in passages)
    for request, answer in zip(requests, answers, strict=True):
        asked = len(model.tokenizer.chat_prompt(request))
        assert len(answer.top) == len(answer.bottom) - asked + 1  # the last token of the question says the first
    again = Anchor.prepare(model, SENTENCES, requests)
    assert all(torch.equal(a.top, b.top) for a, b in zip(answers, again.groups[1], strict=True))


def test_answers_are_written_once(model: TorchModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    requests = ["Say hello.", "What is a river?"]
    first = Anchor.prepare(model, SENTENCES, requests, tmp_path)
    monkeypatch.setattr("fedoel.server.distillation.anchor.tell", None)
    again = Anchor.prepare(model, SENTENCES, requests, tmp_path)
    assert all(torch.equal(a.top, b.top) for a, b in zip(first.groups[1], again.groups[1], strict=True))


@pytest.mark.slow
def test_the_answers_that_are_shipped_are_those_of_the_packaged_model(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    packaged = load_model(PolicyConfig(device="cpu", precision="fp32", threads=1, lora_layers=2), cache)
    requests = REQUESTS.read_text(encoding="utf-8").splitlines()
    (shipped,) = ANSWERS.iterdir()
    written = module._written(packaged, requests[:BATCH])
    same = [ours == theirs for ours, theirs in zip(written, json.loads(shipped.read_bytes()), strict=False)]
    assert sum(same) >= BATCH - 2  # another processor's last bits may choose another word
    monkeypatch.setattr(module, "_written", None)
    assert len(Anchor.prepare(packaged, cache=tmp_path).groups[1]) == len(requests)  # found by its name
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ['["cut', "[]", "[1, 2]", "{}"])
def test_damaged_answers_are_written_again(model: TorchModel, tmp_path: Path, damage: str) -> None:
    requests = ["Say hello.", "What is a river?"]
    Anchor.prepare(model, SENTENCES, requests, tmp_path / "kept")
    (kept,) = (tmp_path / "kept").iterdir()
    whole = kept.read_text()
    kept.write_text(damage)
    Anchor.prepare(model, SENTENCES, requests, tmp_path / "kept")
    assert kept.read_text() == whole


def test_how_a_model_answers_is_kept_and_not_only_how_it_reads(model: TorchModel) -> None:
    anchor, rng = Anchor.prepare(model, SENTENCES), np.random.default_rng(0)
    model.load({name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in model.fresh.items()})
    whole = float(anchor.loss(np.random.default_rng(1)).detach())
    read = replace(anchor, groups=anchor.groups[:1])
    assert whole > float(read.loss(np.random.default_rng(1)).detach()) + 0.01


def test_text_and_requests_are_shipped_and_are_not_what_is_measured() -> None:
    anchored, measured = (path.read_text(encoding="utf-8") for path in (TEXT, MEASURED))
    assert len(anchored.split()) > 10 * LENGTH
    lines = {line for line in anchored.splitlines() if line}
    assert not lines & set(measured.splitlines())
    requests = REQUESTS.read_text(encoding="utf-8").splitlines()
    assert len(set(requests)) == len(requests) > 50
    assert not set(requests) & {instruction.ask for instruction in load_instructions()}
