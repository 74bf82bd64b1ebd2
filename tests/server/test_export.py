"""Exports load with plain peft and plain llama-cpp-python, and say what the version says."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.cli.export import EXPORTS, KINDS
from fedoel.cli.main import main
from fedoel.policies.torch.base import dequantised, load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.config import PolicyConfig, RunConfig
from fedoel.protocol.errors import ConfigError, FedoelError, ModelError, VersionError
from fedoel.protocol.records.summary import GateRecord, Lesson, PrivacyPromise, Stats
from fedoel.protocol.situation import Memory, Situation
from fedoel.protocol.versions import Manifest
from fedoel.server.export import FORMATS, export, verified
from fedoel.server.registry import save_version
from fedoel.server.summary import read_summary, write_summary
from fedoel.server.torch_learner import TorchLearner

COMMITTED = Path(__file__).resolve().parents[2] / "benchmarks" / "results" / "quick-0"
COMMANDS = ("go east", "take coin", "take coin from shelf", "look")
LESSONS = (Lesson("take · named in the goal", 2.5, 12.0),)


def won(rate: float) -> Stats:
    return Stats(win_rate=rate, low=0, high=1, episodes=24, score=rate, turns_per_win=3, tokens_per_win=9)


GATE = GateRecord(current=won(0.25), teacher=won(0.5), candidate=won(0.75), reason="it wins more")


class Made:
    """A version in a run's folder, and the policy that it is."""

    def __init__(self, base: Path, run: Path) -> None:
        config = PolicyConfig("torch", str(base), "cpu", "fp32", threads=1, lora_layers=2, lora_rank=4)
        self.base, self.run = base, run
        self.model = TorchModel(load_base(config, run), 512)
        rng = np.random.default_rng(0)
        shapes = self.model.fresh.items()
        self.adapter = {name: rng.normal(0, 0.1, a.shape).astype(np.float32) for name, a in shapes}
        self.policy = TorchPolicy(self.model, self.adapter)
        manifest = Manifest(self.policy.version, "", self.model.base.digest, 3, "tactics", LESSONS, 8, GATE)
        self.key = Ed25519PrivateKey.generate()
        learner = TorchLearner(replace(RunConfig(), policy=config), run)
        self.folder = save_version(run / "versions", manifest, self.adapter, learner, self.key)

    def trust(self, key: Ed25519PrivateKey) -> None:
        (self.run / "keys").mkdir(exist_ok=True)
        (self.run / "keys" / "fleet.pub").write_text(key.public_key().public_bytes_raw().hex())


@pytest.fixture(scope="module")
def made(tiny_gguf: Path, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tiny_gguf, tmp_path_factory.mktemp("run"))


def situation() -> Situation:
    return Memory("Take the coin.", 9).see("-= Hall =-\nYou are in a hall. There is a coin.", COMMANDS, 0)


def test_plain_peft_loads_an_export_and_gives_the_merged_weights_logits(made: Made, tmp_path: Path) -> None:
    from peft import PeftModel
    from transformers import AutoModelForCausalLM

    folder, _ = dequantised(made.base, made.run)
    out = export(made.folder, "peft", "", str(made.base), tmp_path / "out")
    plain = PeftModel.from_pretrained(AutoModelForCausalLM.from_pretrained(folder), str(out)).eval()
    by_hand = AutoModelForCausalLM.from_pretrained(folder).eval()
    modules = dict(by_hand.named_modules())
    for name in (name for name in made.adapter if "lora_A" in name):
        a, b = (torch.from_numpy(made.adapter[each]) for each in (name, name.replace("lora_A", "lora_B")))
        modules[name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")].weight.data += 2 * b @ a
    tokens = torch.tensor([[*made.model.tokenizer.head, *made.model.tokenizer.ids("take coin")]])
    with torch.no_grad():
        assert torch.allclose(plain(tokens).logits, by_hand(tokens).logits, atol=1e-4)
    assert "/" not in json.loads((out / "adapter_config.json").read_text())["base_model_name_or_path"]


def commands_by_hand(llama: Any, made: Made) -> np.ndarray:
    """Score every command by itself, over the tokens of prompt and commands."""
    tokenizer = made.model.tokenizer
    row = tokenizer.encode([situation()])[0]
    prompt = [*tokenizer.head, *row.scene, *row.moment]
    ids = [(*tokenizer.ids(command), 0) for command in COMMANDS]
    counted = [ids[n] if ids[n][:-1] == ids[2][: len(ids[n]) - 1] and n == 1 else ids[n][:-1] for n in range(len(ids))]
    known = sorted({*row.scene, *row.moment, *(token for command in counted for token in command)})
    scores = []
    for command in counted:
        llama.reset()
        llama.eval([*prompt, *command])
        logits = llama.scores[len(prompt) - 1 : len(prompt) - 1 + len(command)].astype(np.float64)
        scores.append(
            sum(at[token] - np.logaddexp.reduce(at[known]) for at, token in zip(logits, command, strict=True))
        )
    return np.asarray(scores - np.logaddexp.reduce(scores))


@pytest.mark.parametrize(("to", "kind"), [("gguf-lora", "f32"), ("gguf-lora", ""), ("gguf-merged", "f32"),
                                          ("gguf-merged", "f16"), ("gguf-merged", "q8_0")])  # fmt: skip
def test_plain_llama_cpp_reproduces_the_commands_probabilities(made: Made, tmp_path: Path, to: str, kind: str) -> None:
    llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")
    out = export(made.folder, to, kind, str(made.base), tmp_path / "out")
    files = {"model_path": str(made.base), "lora_path": str(out / "adapter.gguf")}
    if to == "gguf-merged":
        files = {"model_path": str(out / "model.gguf")}
    llama = llama_cpp.Llama(**files, n_ctx=512, n_threads=1, logits_all=True, verbose=False)
    found, expected = commands_by_hand(llama, made), made.policy.score([situation()])[0]
    assert (
        np.allclose(found, expected, rtol=0.05, atol=0.05)
        if kind == "q8_0"
        else np.allclose(found, expected, rtol=0.005, atol=0.005)
    )


def test_the_card_says_what_the_manifest_says(made: Made, tmp_path: Path) -> None:
    export(made.folder, "peft", "", str(made.base), tmp_path / "bare")
    bare = (tmp_path / "bare" / "README.md").read_text()
    for words in (made.policy.version, made.model.base.digest, "tactics", "+2.50", "75 %", "it wins more"):
        assert words in bare
    assert "not verified" in bare and "were not audited" in bare and str(made.run) not in bare
    (made.run / "privacy-card.md").write_text("# Privacy card\n")
    (made.run / "privacy-card.json").write_text("{}")
    promise = PrivacyPromise(mechanism="distributed", epsilon=2.0)
    write_summary(made.run, replace(read_summary(COMMITTED), privacy=promise))
    made.trust(made.key)
    try:
        export(made.folder, "gguf-lora", "", str(made.base), tmp_path / "full")
    finally:
        for path in (made.run / "privacy-card.md", made.run / "summary.json", made.run / "keys" / "fleet.pub"):
            path.unlink()
    full = (tmp_path / "full" / "README.md").read_text()
    assert "signature verified" in full and "[privacy-card.md]" in full and "| epsilon | 2.0 |" in full
    assert (tmp_path / "full" / "privacy-card.md").exists()
    assert (tmp_path / "full" / "manifest.json").read_text() == (made.folder / "manifest.json").read_text()


def test_only_what_verifies_is_exported(made: Made, tmp_path: Path) -> None:
    import shutil

    made.trust(Ed25519PrivateKey.generate())
    try:
        with pytest.raises(VersionError, match="not signed by this fleet's key"):
            verified(made.folder)
    finally:
        (made.run / "keys" / "fleet.pub").unlink()
    broken = tmp_path / "run" / "versions" / "x"
    shutil.copytree(made.folder, broken)
    text = (broken / "manifest.json").read_text()
    (broken / "manifest.json").write_text(text.replace(made.policy.version, "0" * 16))
    with pytest.raises(VersionError, match="the manifest says version"):
        export(broken, "peft", "", str(made.base), tmp_path / "out")
    (broken / "manifest.json").unlink()
    with pytest.raises(VersionError, match=r"has no manifest\.json"):
        export(broken, "peft", "", str(made.base), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_cannot_be_exported_is_refused(made: Made, tiny_base: Path, tmp_path: Path) -> None:
    refused: Sequence[tuple[type[FedoelError], str, str, str, Path]] = (
        (ConfigError, "peft", "q8_0", "not as q8_0", made.base),
        (ModelError, "gguf-merged", "", "not the base of version", tiny_base),
    )
    for error, to, kind, says, base in refused:
        with pytest.raises(error, match=says):
            export(made.folder, to, kind, str(base), tmp_path / "out")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export(made.folder, "peft", "", str(made.base), tmp_path / "full")


def test_an_adapter_of_a_folder_is_exported_for_llama_cpp_but_not_merged(tiny_base: Path, tmp_path: Path) -> None:
    made = Made(tiny_base, tmp_path / "run")
    assert (export(made.folder, "gguf-lora", "", str(tiny_base), tmp_path / "lora") / "adapter.gguf").exists()
    with pytest.raises(ModelError, match="needs a GGUF file"):
        export(made.folder, "gguf-merged", "", str(tiny_base), tmp_path / "merged")


def test_the_verb_exports(made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["export", str(made.folder), "--base", str(made.base), "--out", str(tmp_path / "out")]
    assert main([*words, "--to", "gguf-lora"]) == 0
    assert "adapter.gguf" in capsys.readouterr().out
    assert main([*words, "--to", "gguf-lora", "--quantise", "q8_0"]) == 2
    assert "not as q8_0" in capsys.readouterr().err


def test_the_command_line_offers_what_there_is() -> None:
    assert set(EXPORTS) == set(FORMATS)
    assert set(KINDS) == {kind for kinds in FORMATS.values() for kind in kinds}


def snippet(out: Path) -> str:
    return (out / "README.md").read_text(encoding="utf-8").split("```python\n")[1].split("```")[0]


@pytest.mark.parametrize("to", FORMATS)
def test_the_code_on_the_card_loads_the_export(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, to: str
) -> None:
    if to != "peft":
        llama_cpp = pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")
        with_logits = partial(llama_cpp.Llama, n_ctx=512, n_threads=1, logits_all=True, verbose=False)
        monkeypatch.setattr(llama_cpp, "Llama", with_logits)
    out = export(made.folder, to, "f32", str(made.base), tmp_path / "out")
    (out / made.base.name).symlink_to(made.base)
    monkeypatch.chdir(out)
    loaded: dict[str, Any] = {}
    exec(snippet(out), loaded)
    if to == "peft":
        weights = dict(loaded["model"].named_parameters())
        for name, array in made.adapter.items():
            assert np.array_equal(weights[name.replace(".weight", ".default.weight")].detach().numpy(), array)
    else:
        found, expected = commands_by_hand(loaded["model"], made), made.policy.score([situation()])[0]
        assert np.allclose(found, expected, rtol=0.005, atol=0.005)


def test_the_code_on_the_card_loads_an_export_of_a_folder(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = Made(tiny_base, tmp_path / "run")
    out = export(made.folder, "peft", "", str(tiny_base), tmp_path / "out")
    (out / tiny_base.name).symlink_to(tiny_base)
    monkeypatch.chdir(out)
    loaded: dict[str, Any] = {}
    exec(snippet(out), loaded)
    weights = dict(loaded["model"].named_parameters())
    name = next(name for name in made.adapter if "lora_B" in name)
    assert np.allclose(
        weights[name.replace(".weight", ".default.weight")].detach().numpy(), made.adapter[name], atol=1e-3
    )


def test_a_card_names_no_exact_number_of_devices(made: Made, tmp_path: Path) -> None:
    page = (export(made.folder, "peft", "", str(made.base), tmp_path / "out") / "README.md").read_text(encoding="utf-8")
    assert "| clients in the last aggregate | 8 to 15 devices |" in page
