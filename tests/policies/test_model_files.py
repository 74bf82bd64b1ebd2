"""The digest of a folder names what a model computes with: its weights, tokenizer and chat template."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from fedoel.policies.model_files import model_digest
from fedoel.protocol.errors import ModelError


@pytest.fixture
def folder(tiny_base: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(tiny_base, tmp_path / "model"))


def sharded(folder: Path) -> None:
    model = AutoModelForCausalLM.from_pretrained(folder)
    (folder / "model.safetensors").unlink()
    model.save_pretrained(folder, max_shard_size="40KB")
    assert len(list(folder.glob("*.safetensors"))) > 1


def generates_otherwise(folder: Path) -> None:
    (folder / "generation_config.json").write_text("{}")


def other_template(folder: Path) -> None:
    (folder / "chat_template.jinja").write_text("{{ messages[-1].content }}")


def other_tokenizer(folder: Path) -> None:
    file = folder / "tokenizer.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "normalizer": {"type": "Lowercase"}}))


def other_weights(folder: Path) -> None:
    file = folder / "model.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.parametrize(("change", "same"), [
    (sharded, True), (generates_otherwise, True), (other_template, False), (other_tokenizer, False),
    (other_weights, False),
])  # fmt: skip
def test_a_digest_changes_with_what_a_model_computes(change: Callable[[Path], None], same: bool, folder: Path) -> None:
    before = model_digest(folder)
    change(folder)
    assert (model_digest(folder) == before) is same


@pytest.mark.parametrize("keep", [0, 7, 40, 2000])
def test_a_damaged_file_of_weights_is_refused(keep: int, folder: Path) -> None:
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(ModelError, match="cannot be read as a file of weights"):
        model_digest(folder)
