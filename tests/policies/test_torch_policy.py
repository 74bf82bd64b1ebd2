from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY
from fedoel.policies.torch import prefix_cache
from fedoel.policies.torch.base import load_base, pick_device
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy, load_policy
from fedoel.protocol.config import PolicyConfig, RunConfig, WarmStartConfig
from fedoel.protocol.errors import ModelError
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.messages import PlayRequest, request_from_records, request_to_records
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation
from fedoel.protocol.versions import Manifest
from fedoel.server.registry import load_adapter, save_version
from fedoel.server.torch_learner import TorchLearner

HALL = "-= Hall =-\nYou are in a hall. There is a coin."
CELLAR = "-= Cellar =-\nA dark cellar."


def situations() -> list[Situation]:
    memory = Memory("Take the coin.", 5)
    first = memory.see(HALL, ("go east", "take coin", "take coin from shelf", "look"), 0)
    memory.do("look")
    second = memory.see(HALL, ("go east", "take coin", "take coin from shelf", "look"), 1)
    memory.do("go east")
    third = memory.see(CELLAR, ("go west", "look"), 2)
    alone = Memory("Leave.", 5).see(CELLAR, ("go west",), 0)
    return [first, second, third, alone]


def config(base: Path) -> PolicyConfig:
    return PolicyConfig(
        base=str(base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4, batch_tokens=64
    )


@pytest.fixture
def model(tiny_base: Path, tmp_path: Path) -> TorchModel:
    return TorchModel(load_base(config(tiny_base), tmp_path), 64)


@pytest.fixture
def adapters(model: TorchModel) -> Iterator[list[dict[str, Any]]]:
    rng = np.random.default_rng(0)
    yield [
        {name: rng.normal(0, 0.2, array.shape).astype(np.float32) for name, array in model.fresh.items()}
        for _ in range(2)
    ]


def by_hand(reference: Any, model: TorchModel, situation: Situation) -> np.ndarray:
    """Score every command by itself with a plain model, over the tokens of prompt and commands."""
    row = model.tokenizer.encode([situation])[0]
    prompt = [*model.tokenizer.head, *row.scene, *row.moment]
    ids = [(*model.tokenizer.ids(command), model.tokenizer.end_token) for command in situation.admissible]
    known = sorted({*row.scene, *row.moment, *(token for command in ids for token in said(command, ids))})
    scores = []
    for command in ids:
        with torch.no_grad():
            logits = reference(torch.tensor([prompt + list(command)])).logits[0, len(prompt) - 1 : -1]
        parts = [logits[n, token] - logits[n, known].logsumexp(0) for n, token in enumerate(said(command, ids))]
        scores.append(float(sum(parts)))
    return np.asarray(scores - np.logaddexp.reduce(scores))


def said(command: tuple[int, ...], ids: list[tuple[int, ...]]) -> tuple[int, ...]:
    """What of a command counts: its end only where another command goes on."""
    goes_on = any(other != command and other[: len(command) - 1] == command[:-1] for other in ids)
    return command if goes_on else command[:-1]


def test_scores_equal_those_of_plain_transformers(tiny_base: Path, model: TorchModel) -> None:
    model.load({})
    plain = AutoModelForCausalLM.from_pretrained(tiny_base)
    for situation, scored in zip(situations(), model.score(situations()), strict=True):
        assert np.allclose(scored, by_hand(plain, model, situation), atol=1e-4)
        assert np.isclose(np.exp(scored).sum(), 1.0, atol=1e-5)


def test_scores_do_not_depend_on_the_rest_of_the_batch(model: TorchModel, adapters: list[dict[str, Any]]) -> None:
    model.load(adapters[0])
    together = model.score(situations() * 3)
    for situation, scored in zip(situations() * 3, together, strict=True):
        assert np.allclose(model.score([situation])[0], scored, atol=1e-5)


def test_versions_share_bottoms_but_not_scores(
    tiny_base: Path, tmp_path: Path, model: TorchModel, adapters: list[dict[str, Any]]
) -> None:
    shared = model.new_prefix_cache()
    first, second = (TorchPolicy(model, adapter, shared) for adapter in adapters)
    before = first.score(situations())
    other = second.score(situations())
    again = first.score(situations())
    fresh = TorchPolicy(TorchModel(load_base(config(tiny_base), tmp_path), 64), adapters[1]).score(situations())
    assert all(np.array_equal(a, b) for a, b in zip(before, again, strict=True))
    assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(other, fresh, strict=True))
    assert not np.allclose(before[0], other[0], atol=1e-3)
    assert first.version != second.version


def test_cached_scenes_do_not_depend_on_the_batch(model: TorchModel, adapters: list[dict[str, Any]]) -> None:
    model.load(adapters[0])
    together, alone = model.new_prefix_cache(), model.new_prefix_cache()
    wanted = [(*(token % 90 for token in range(5, 5 + length)),) for length in (3, 40, 40, 7, 900, 12, 41)]
    together.prepare(wanted, model.version)
    for scene in wanted:
        alone.prepare([scene], model.version)
        for ours, theirs in zip(
            together.pack([scene]).key_values.values(), alone.pack([scene]).key_values.values(), strict=True
        ):
            assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(ours, theirs, strict=True))


def test_evicting_scenes_changes_no_score(model: TorchModel, monkeypatch: pytest.MonkeyPatch) -> None:
    model.load({})
    before, kept = model.score(situations()), model.new_prefix_cache()
    monkeypatch.setattr(prefix_cache, "TOKENS_KEPT", 1)
    for _ in range(2):
        after = [model.score([situation], kept)[0] for situation in situations()]
        assert all(np.allclose(a, b, atol=1e-5) for a, b in zip(before, after, strict=True))


def test_prompt_tokens_are_head_scene_and_moment(model: TorchModel) -> None:
    policy = TorchPolicy(model, {})
    rows = model.tokenizer.encode(situations())
    expected = [len(model.tokenizer.head) + len(row.scene) + len(row.moment) for row in rows]
    assert policy.tokens(situations()) == expected


def test_an_adapter_of_another_shape_is_refused(model: TorchModel) -> None:
    with pytest.raises(ModelError, match="does not fit"):
        model.load({"weights": np.zeros(3, dtype=np.float32)})


def test_a_version_that_is_not_what_it_says_is_refused(tiny_base: Path, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="asked for policy"):
        load_policy(config(tiny_base), {}, "another", tmp_path)


def test_missing_and_invalid_models_are_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.gguf").write_bytes(b"GGUF but not really" * 10)
    (tmp_path / "empty").mkdir()
    for base, says in (
        (tmp_path / "none", "no model at"),
        (tmp_path / "bad.gguf", "cannot be"),
        (tmp_path / "empty", "holds no model"),
    ):
        with pytest.raises(ModelError, match=says):
            load_base(config(base), tmp_path)


def test_a_missing_device_is_refused() -> None:
    for name in ("toaster", "cuda:99"):
        with pytest.raises(ModelError, match=f"policy.device '{name}' cannot be used here"):
            pick_device(name)


def test_weights_that_changed_in_place_are_another_version_with_its_own_scenes(
    model: TorchModel, adapters: list[dict[str, Any]]
) -> None:
    kept = model.new_prefix_cache()
    TorchPolicy(model, adapters[0], kept).score(situations())
    for parameter in model.base.model.parameters():
        if parameter.requires_grad:
            parameter.data.mul_(0.5)
    model.changed()
    halved = {name: array / 2 for name, array in adapters[0].items()}
    for before, after in zip(
        model.score(situations(), kept), TorchPolicy(model, halved).score(situations()), strict=True
    ):
        assert np.allclose(before, after, atol=1e-5)


def test_a_saved_version_loads_with_plain_peft(
    tiny_base: Path, tmp_path: Path, model: TorchModel, adapters: list[dict[str, Any]]
) -> None:
    from dataclasses import replace

    from peft import PeftModel

    policy = TorchPolicy(model, adapters[0])
    manifest = Manifest(policy.version, "", model.base.digest, 0, "tactics", (), 0, None)
    learner = TorchLearner(replace(RunConfig(), policy=config(tiny_base)), tmp_path)
    folder = save_version(tmp_path / "versions", manifest, adapters[0], learner)
    assert load_adapter(folder)[0] == policy.version
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(tiny_base), str(folder))
    for situation, scored in zip(situations(), policy.score(situations()), strict=True):
        assert np.allclose(scored, by_hand(plain, model, situation), atol=1e-3)


def test_an_empty_adapter_is_the_base_model_also_after_another(
    tiny_base: Path, model: TorchModel, adapters: list[dict[str, Any]]
) -> None:
    assert all(not array.any() for name, array in model.fresh.items() if "lora_B" in name)
    model.load(adapters[0])
    adapted = model.score(situations())[0]
    model.load({})
    assert not np.allclose(adapted, model.score(situations())[0], atol=1e-3)
    plain = AutoModelForCausalLM.from_pretrained(tiny_base)
    assert np.allclose(model.score(situations())[0], by_hand(plain, model, situations()[0]), atol=1e-4)


def test_a_device_plays_the_very_weights_that_the_server_judges(tiny_base: Path, tmp_path: Path) -> None:
    """What is learned is rounded to what travels, half the bytes, before anything is measured."""
    chosen = RunConfig(policy=config(tiny_base), warm_start=WarmStartConfig(steps=2, batch=2))
    learner = TorchLearner(chosen, tmp_path)
    turns = [Turn(situations()[0], np.log(np.full(4, 0.25, np.float32)), 0, 0.0)]
    adapter = learner.warm_start(turns, lambda steps: None)
    assert {array.dtype for array in adapter.values()} == {np.dtype(np.float16)}
    judged = learner.policy(adapter)
    spec = VectorSpec("tactics", DIMENSION, VOCABULARY, judged.version, ("frozen-lake",), 10, 50.0, 200.0)
    request = PlayRequest(1, 1, spec, np.zeros((1, 10), np.float32), adapter)
    arrived = request_from_records(request_to_records(request)).adapter
    device = load_policy(config(tiny_base), arrived, judged.version, tmp_path)  # which refuses another version
    for ours, theirs in zip(judged.score(situations()), device.score(situations()), strict=True):
        assert np.array_equal(ours, theirs)
    again = TorchLearner(chosen, tmp_path).warm_start(turns, lambda steps: None)  # from the cache
    assert all(np.array_equal(again[name], array) for name, array in adapter.items())
    (kept,) = (tmp_path / "warm-starts").iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(whole[: len(whole) // 2])
    again = TorchLearner(chosen, tmp_path).warm_start(turns, lambda steps: None)  # made again
    assert all(np.array_equal(again[name], array) for name, array in adapter.items()) and kept.read_bytes() == whole


def test_a_warm_start_of_another_number_of_threads_is_another_one(tiny_base: Path, tmp_path: Path) -> None:
    """Sums in another order end in other bits, which play carries far: what a cache holds must not decide a run."""
    turns, before = [Turn(situations()[0], np.log(np.full(4, 0.25, np.float32)), 0, 0.0)], torch.get_num_threads()
    try:
        for threads in (1, 2, 1):
            policy = replace(config(tiny_base), threads=threads)
            chosen = RunConfig(policy=policy, warm_start=WarmStartConfig(steps=1, batch=1))
            TorchLearner(chosen, tmp_path).warm_start(turns, lambda steps: None)
    finally:
        torch.set_num_threads(before)
    assert len(list((tmp_path / "warm-starts").iterdir())) == 2
