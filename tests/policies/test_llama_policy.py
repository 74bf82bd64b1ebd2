"""The llama.cpp backend against the torch backend, on the same file and the same adapters."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.policies.backend import LlamaBackend
from fedoel.policies.lora import permuted
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ModelError
from fedoel.protocol.situation import Memory, Situation

pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")

from fedoel.codecs.encoder import load_encoder
from fedoel.codecs.steering import DIMENSION
from fedoel.policies.llama import model as llama_model
from fedoel.policies.llama import prefix_cache as llama_prefixes
from fedoel.policies.llama.model import LlamaModel
from fedoel.policies.llama.policy import LlamaPolicy, load_policy
from fedoel.policies.llama.prefix_cache import BRANCHES, fitting_batches, leaf_count, leaves_below
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy

from ..conftest import write_tiny_gguf

COMMANDS = ("go east", "take coin", "take coin from shelf", "look", "take")
CLOSE = 0.005  # of a log-probability, which is a sum over tokens: keys and values are kept in half precision
Adapter = dict[str, Any]


def situations() -> list[Situation]:
    memory = Memory("Take the coin.", 9)
    found = [memory.see("-= Hall =-\nYou are in a hall. There is a coin.", COMMANDS, 0)]
    memory.do("look")
    found.append(memory.see("-= Hall =-\nYou are in a hall. There is a coin.", COMMANDS, 1))
    memory.do("go east")
    found.append(memory.see("-= Cellar =-\nA dark cellar.", ("go west", "look", "go west now"), 2))
    alone = Memory("Leave.", 5).see("-= Cellar =-\nA dark cellar.", ("go west",), 0)
    return [*found, alone]


def config(base: Path, **more: Any) -> PolicyConfig:
    settings = {"precision": "fp32", "threads": 1, "lora_layers": 2, "lora_rank": 4, "batch_tokens": 512}
    return PolicyConfig(backend="llama", base=str(base), device="cpu", weights="file", **{**settings, **more})


@pytest.fixture(scope="module")
def torch_model(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> TorchModel:
    return TorchModel(load_base(config(tiny_gguf), tmp_path_factory.mktemp("torch")), 512)


@pytest.fixture(scope="module")
def adapters(torch_model: TorchModel) -> list[Adapter]:
    rng = np.random.default_rng(0)
    fresh = torch_model.fresh.items()
    return [{name: rng.normal(0, 0.1, a.shape).astype(np.float32) for name, a in fresh} for _ in range(2)]


@pytest.fixture
def model(tiny_gguf: Path, tmp_path: Path) -> LlamaModel:
    return LlamaModel(tiny_gguf, config(tiny_gguf), tmp_path)


def same(ours: list[Any], theirs: list[Any], close: float = CLOSE) -> bool:
    return all(np.allclose(a, b, rtol=close, atol=close) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("architecture", ["qwen2", "qwen3", "gemma3"])
def test_other_architectures_play_the_same_adapters(architecture: str, tmp_path: Path) -> None:
    file = tmp_path / "tiny.gguf"
    write_tiny_gguf(file, architecture)
    theirs = TorchModel(load_base(config(file), tmp_path / "torch"), 512)
    rng = np.random.default_rng(0)
    adapter = {name: rng.normal(0, 0.1, array.shape).astype(np.float32) for name, array in theirs.fresh.items()}
    for weights in (adapter, {}):
        ours = LlamaPolicy(LlamaModel(file, config(file), tmp_path / "llama"), weights).score(situations())
        assert same(ours, TorchPolicy(theirs, weights).score(situations()))


def test_scores_equal_those_of_torch(model: LlamaModel, torch_model: TorchModel, adapters: list[Adapter]) -> None:
    for adapter in adapters:
        ours, theirs = LlamaPolicy(model, adapter), TorchPolicy(torch_model, adapter)
        scored = ours.score(situations())
        assert same(scored, theirs.score(situations()))
        assert all(np.isclose(np.exp(answer).sum(), 1, atol=1e-5) for answer in scored)
        assert ours.version == theirs.version
        assert ours.tokens(situations()) == theirs.tokens(situations())


def test_an_empty_adapter_is_the_base_model_also_after_another(
    model: LlamaModel, torch_model: TorchModel, adapters: list[Adapter]
) -> None:
    adapted = LlamaPolicy(model, adapters[0]).score(situations())
    bare = LlamaPolicy(model, {}).score(situations())
    assert same(bare, TorchPolicy(torch_model, {}).score(situations()))
    assert not same(bare, adapted)


def test_a_policy_says_what_its_backend_says(model: LlamaModel) -> None:
    assert LlamaPolicy(model, {}).abilities == LlamaBackend.abilities


def test_versions_alternate_without_loading_the_base_again(model: LlamaModel, adapters: list[Adapter]) -> None:
    first, second = (LlamaPolicy(model, adapter) for adapter in adapters)
    before, handle = first.score(situations()), model.file.handle
    assert not same(before, second.score(situations()))
    assert same(before, first.score(situations()), 1e-3)
    assert model.file.handle is handle


def test_scores_do_not_depend_on_the_rest_of_the_batch(model: LlamaModel, adapters: list[Adapter]) -> None:
    policy = LlamaPolicy(model, adapters[0])
    together = policy.score(situations() * 7)
    fresh = LlamaPolicy(model, adapters[0])
    assert same(together, [fresh.score([situation])[0] for situation in situations() * 7])


def test_cached_scenes_are_not_evaluated_again(model: LlamaModel, adapters: list[Adapter]) -> None:
    policy, rows = LlamaPolicy(model, adapters[0]), model.tokenizer.encode(situations()[:2])
    policy.score(situations()[:1])
    scene = len(model.tokenizer.head) + len(rows[0].scene)
    assert model.context.evaluated == scene + len(rows[0].tokens)
    policy.score(situations()[1:2])
    assert model.context.evaluated == scene + len(rows[0].tokens) + len(rows[1].tokens)


def test_scenes_share_their_longest_common_prefix(model: LlamaModel, adapters: list[Adapter]) -> None:
    policy = LlamaPolicy(model, adapters[0])
    policy.score(situations()[:1])
    before = model.context.evaluated
    policy.score(situations()[2:3])
    hall, cellar = (model.tokenizer.encode([situation])[0] for situation in (situations()[0], situations()[2]))
    shared = llama_prefixes.shared_length(hall.scene, cellar.scene)
    assert shared > len(model.tokenizer.ids("Goal: Take the coin.\n")) - 2
    assert model.context.evaluated - before == len(cellar.scene) - shared + len(cellar.tokens)


def test_adapters_are_converted_once_and_only_the_newest_are_kept(
    model: LlamaModel, tmp_path: Path, adapters: list[Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(llama_model, "ADAPTERS_KEPT", 2)
    halves = [{name: array / n for name, array in adapters[0].items()} for n in (1, 2, 3)]
    for adapter in (*halves, halves[-1]):
        LlamaPolicy(model, adapter).score(situations())
    kept = sorted(path.name for path in (tmp_path / "adapters").iterdir())
    assert kept == sorted(f"{LlamaPolicy(model, half).version}-1.gguf" for half in halves[1:])


def test_a_single_command_needs_no_evaluation(model: LlamaModel) -> None:
    assert LlamaPolicy(model, {}).score(situations()[3:])[0].tolist() == [0.0]
    assert model.context.evaluated == 0


def many(count: int) -> list[Situation]:
    commands = ("go east", "go west", "take coin")
    return [Memory(f"Find number {n}.", 9).see(f"-= Room {n} =-\nA room.", commands, 0) for n in range(count)]


def test_more_games_than_the_cache_holds_are_scored_in_batches(
    tiny_gguf: Path, tmp_path: Path, adapters: list[Adapter]
) -> None:
    roomy, narrow = (LlamaModel(tiny_gguf, config(tiny_gguf, batch_tokens=n), tmp_path) for n in (8192, 512))
    played = many(70)
    wide, tight = (LlamaPolicy(each, adapters[0]) for each in (roomy, narrow))
    expected = wide.score(played)
    assert same(tight.score(played), expected)
    assert same(tight.score(played[::-1]), expected[::-1])
    assert narrow.context.evaluated > roomy.context.evaluated


def test_a_prompt_that_is_too_long_is_refused_and_the_next_is_answered(model: LlamaModel) -> None:
    long = Memory("Wait.", 9).see("-= Hall =-\n" + "word " * 900, ("go east", "look"), 0)
    policy = LlamaPolicy(model, {})
    before = policy.score(situations())
    with pytest.raises(ModelError, match=r"policy\.batch-tokens"):
        policy.score([long])
    assert same(policy.score(situations()), before, 1e-3)


def test_every_node_belongs_to_the_branches_of_the_leaves_below_it(model: LlamaModel) -> None:
    row = model.tokenizer.encode(situations()[:1])[0]
    sees, below = row.tree.ancestors(), leaves_below(row)
    for node in range(len(row.tree.tokens)):
        for other in range(len(row.tree.tokens)):
            assert (set(below[node]) <= set(below[other])) >= bool(sees[node, other])
    assert {leaf for own in below for leaf in own} == set(range(leaf_count(row)))


def test_batches_keep_order_and_fit(model: LlamaModel) -> None:
    rows = model.tokenizer.encode(many(150))
    batches = list(fitting_batches(rows, 1000))
    assert [row for batch in batches for row in batch] == rows
    for batch in batches:
        assert sum(leaf_count(row) for row in batch) <= len(BRANCHES)
        assert len({row.scene for row in batch}) <= len(llama_prefixes.PREFIX_SEQUENCES)
        assert sum(len(row.scene) + len(row.tokens) for row in batch) <= 1000


def test_q_and_k_are_reordered_as_llama_cpp_rotates() -> None:
    rows = np.arange(8, dtype=np.float32)[:, None]
    assert permuted(rows, 2)[:, 0].tolist() == [0, 2, 1, 3, 4, 6, 5, 7]
    with pytest.raises(ModelError, match="made for another base"):
        permuted(rows, 3)


def test_weights_are_converted_once(tiny_gguf: Path, tmp_path: Path, adapters: list[Adapter]) -> None:
    exact = LlamaPolicy(LlamaModel(tiny_gguf, config(tiny_gguf), tmp_path), adapters[0])
    for weights, close in (("f16", 0.01), ("q8_0", 0.1)):
        settings = PolicyConfig("llama", str(tiny_gguf), "cpu", weights=weights, threads=1)
        policy = load_policy(settings, adapters[0], exact.version, tmp_path)
        [copy] = (tmp_path / "models").glob(f"*-{weights}-*.gguf")
        made = copy.stat().st_mtime_ns
        assert same(policy.score(situations()), exact.score(situations()), close)
        llama_model.load_model.cache_clear()
        load_policy(settings, adapters[0], exact.version, tmp_path)
        assert copy.stat().st_mtime_ns == made


def test_what_does_not_fit_is_refused(tiny_gguf: Path, tiny_base: Path, tmp_path: Path, model: LlamaModel) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"GGUF but not really" * 10)
    for base, says in ((tmp_path / "none", "no model at"), (bad, "cannot be loaded"), (tiny_base, "needs a GGUF file")):
        with pytest.raises(ModelError, match=says):
            load_policy(config(base), {}, "", tmp_path)
    with pytest.raises(ModelError, match="asked for policy"):
        load_policy(config(tiny_gguf), {}, "another", tmp_path)
    for adapter, says in (
        ({"weights": np.zeros((2, 2), np.float32)}, "no such LoRA layer"),
        ({"base_model.model.model.layers.0.mlp.up_proj.lora_A.weight": np.zeros((2, 64), np.float32)}, "do not fit"),
    ):
        with pytest.raises(ModelError, match=says):
            LlamaPolicy(model, adapter).score(situations())


def test_an_adapter_of_another_base_is_refused(model: LlamaModel) -> None:
    name = "base_model.model.model.layers.{}.mlp.up_proj.lora_{}.weight"
    other = {name.format(0, "A"): np.zeros((2, 60), np.float32), name.format(0, "B"): np.zeros((96, 2), np.float32)}
    with pytest.raises(ModelError, match="does not fit the base model"):
        LlamaPolicy(model, other).score(situations())


def test_numbers_that_are_not_finite_are_refused(model: LlamaModel, adapters: list[Adapter]) -> None:
    broken = {name: array.copy() for name, array in adapters[0].items()}
    next(iter(broken.values()))[0, 0] = np.nan
    with pytest.raises(ModelError, match="not finite"):
        LlamaPolicy(model, broken).score(situations())


def steered(policy: Any, context: np.ndarray) -> Any:
    return load_encoder("steering").apply_context(policy, context)


def test_vectors_change_scores_only_while_they_are_applied(model: LlamaModel, adapters: list[Adapter]) -> None:
    policy = LlamaPolicy(model, adapters[0])
    vector = np.random.default_rng(0).normal(0, 0.3, DIMENSION).astype(np.float32)
    bare = policy.score(situations())
    assert same(steered(policy, np.zeros_like(vector)).score(situations()), bare, 1e-3)
    moved = steered(policy, vector).score(situations())
    assert not same(moved, bare, 0.1)
    assert same(policy.score(situations()), bare, 1e-3)
    assert same(steered(policy, vector).score(situations()), moved, 1e-3)


def test_vectors_steer_as_in_torch(model: LlamaModel, torch_model: TorchModel, adapters: list[Adapter]) -> None:
    ours, theirs = LlamaPolicy(model, adapters[0]), TorchPolicy(torch_model, adapters[0])
    for seed, blocks in ((1, slice(None)), (2, slice(0, 96)), (3, slice(192, None))):
        vector = np.zeros(DIMENSION, np.float32)
        vector[blocks] = np.random.default_rng(seed).normal(0, 1, DIMENSION)[blocks]
        moved, expected = (steered(policy, vector) for policy in (ours, theirs))
        assert same(moved.score(situations()), expected.score(situations()), 0.01)
        assert not same(moved.score(situations()), ours.score(situations()), 0.05)
        assert same(moved.features(situations()), expected.features(situations()), 0.01)


def test_embeddings_are_those_of_torch_for_every_version(
    model: LlamaModel, torch_model: TorchModel, adapters: list[Adapter]
) -> None:
    # A scale for the comparison: hidden states of the tiny model are about as large as its embeddings of tokens.
    expected = TorchPolicy(torch_model, adapters[1]).embed(situations())
    ours = LlamaPolicy(model, adapters[0])
    assert [e.shape for e in expected] == [(len(s.admissible), model.file.hidden) for s in situations()]
    scale = max(float(np.abs(e).max()) for e in expected)
    assert same([e / scale for e in ours.embed(situations())], [e / scale for e in expected])
    for (scores, embeddings), alone, embedded in zip(
        ours.score_and_embed(situations()), ours.score(situations()), ours.embed(situations()), strict=True
    ):
        assert same([scores, embeddings / scale], [alone, embedded / scale], 1e-3)


def test_without_vectors_features_are_those_of_torch(
    model: LlamaModel, torch_model: TorchModel, adapters: list[Adapter]
) -> None:
    ours, theirs = LlamaPolicy(model, adapters[0]), TorchPolicy(torch_model, adapters[0])
    found, expected = (steered(each, np.zeros(DIMENSION, np.float32)).features(situations()) for each in (ours, theirs))
    assert [each.shape for each in found] == [(len(each.admissible), DIMENSION) for each in situations()]
    assert same(found, expected)
