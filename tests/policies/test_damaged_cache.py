"""What the cache holds of a model is made again where a file is damaged; a cache that cannot be written is said."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.policies.torch.base import dequantised, load_base
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ModelError

SETTINGS: dict[str, Any] = {
    "device": "cpu", "precision": "fp32", "threads": 1, "lora_layers": 2, "lora_rank": 4, "batch_tokens": 512,
}  # fmt: skip


def cut(path: Path) -> None:
    """Leave the first half of a file, as a crash can."""
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


@pytest.mark.parametrize("damaged", ["model.safetensors", "tokenizer.json", "config.json", ""])
def test_a_damaged_copy_for_torch_is_made_again(tiny_gguf: Path, tmp_path: Path, damaged: str) -> None:
    folder, _ = dequantised(tiny_gguf, tmp_path)
    whole = (folder / "model.safetensors").read_bytes()
    if damaged:
        cut(folder / damaged)
    else:
        shutil.rmtree(folder)
        folder.mkdir()
    load_base(PolicyConfig(backend="torch", base=str(tiny_gguf), **SETTINGS), tmp_path)
    assert (folder / "model.safetensors").read_bytes() == whole


def test_a_model_that_is_damaged_itself_is_refused_and_left_alone(tiny_gguf: Path, tmp_path: Path) -> None:
    source, _ = dequantised(tiny_gguf, tmp_path / "cache")
    folder = shutil.copytree(source, tmp_path / "own")
    cut(folder / "model.safetensors")
    with pytest.raises(ModelError, match="ends too early"):
        load_base(PolicyConfig(backend="torch", base=str(folder), **SETTINGS), tmp_path / "cache")
    assert (folder / "model.safetensors").exists()


def test_a_cache_that_cannot_be_written_is_said(tiny_gguf: Path, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ModelError, match=r"cannot be kept in .*; set FEDOEL_CACHE to a folder that only you can write"):
        dequantised(tiny_gguf, tmp_path / "file")


def test_damaged_files_for_llama_are_made_again(tiny_gguf: Path, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp", reason="llama.cpp is not installed: make setup LLAMA=1")
    from fedoel.policies.llama.model import LlamaModel

    config = PolicyConfig(backend="llama", base=str(tiny_gguf), weights="f16", **SETTINGS)
    fresh = load_base(PolicyConfig(backend="torch", base=str(tiny_gguf), **SETTINGS), tmp_path).model
    adapter = {
        name.replace(".default", ""): value.detach().numpy().astype(np.float32)
        for name, value in fresh.state_dict().items()
        if "lora_" in name
    }

    def load() -> LlamaModel:
        model = LlamaModel(tiny_gguf, config, tmp_path)
        assert model._loaded("version", adapter)
        return model

    load()
    copies = [*tmp_path.glob("models/*.gguf"), *tmp_path.glob("adapters/*.gguf")]
    whole = {path: path.read_bytes() for path in copies}
    assert len(copies) == 2
    for path in copies:
        cut(path)
    load()
    assert {path: path.read_bytes() for path in copies} == whole
