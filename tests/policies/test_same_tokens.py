"""Tokens of a GGUF file in transformers and in llama.cpp: compared before a run, on text that is easy to get wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedoel.policies.model_files import find_model
from fedoel.policies.same_tokens import AWKWARD, check_same_tokens
from fedoel.policies.torch import base
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ModelError

pytest.importorskip("llama_cpp", reason="needs llama-cpp-python")


class Whole:
    """A tokenizer that joins what the other one splits, in text that holds a word."""

    def __init__(self, right: Any, word: str) -> None:
        self._right, self._word = right, word

    def __call__(self, text: str, add_special_tokens: bool) -> dict[str, list[int]]:
        ids = self._right(text, add_special_tokens=add_special_tokens)["input_ids"]
        return {"input_ids": [ids[0] + ids[1], *ids[2:]] if self._word in text else ids}

    def decode(self, ids: Sequence[int]) -> str:
        return next((text for text in AWKWARD if self._word in text), "") if self._word else ""


@pytest.fixture(scope="module")
def tokenizer(cache: Path) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(base.dequantised(find_model(""), cache)[0], local_files_only=True)


def test_the_packaged_model_has_the_same_tokens_in_both(tokenizer: Any) -> None:
    known = [text for text in AWKWARD if tokenizer.decode(tokenizer(text)["input_ids"]) == text]
    assert len(known) > len(AWKWARD) / 2, "most of the text is in its vocabulary"
    check_same_tokens(find_model(""), tokenizer)


def test_other_tokens_are_refused_with_the_text(tokenizer: Any) -> None:
    with pytest.raises(ModelError, match=r"llama.cpp and transformers give '12345 .*from token 1 on .*\"torch\"$"):
        check_same_tokens(find_model(""), Whole(tokenizer, "12345"))


def test_a_dropped_rule_is_found(tokenizer: Any) -> None:
    """Digits by themselves: what transformers dropped from a tokenizer that it read from a GGUF file."""
    from copy import deepcopy

    core = deepcopy(tokenizer)
    core.backend_tokenizer.pre_tokenizer = core.backend_tokenizer.pre_tokenizer[1]
    with pytest.raises(ModelError, match="other tokens"):
        check_same_tokens(find_model(""), core)


def test_a_server_of_llama_devices_compares_once(
    tiny_gguf: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared = list[Path]()
    monkeypatch.setattr(base, "check_same_tokens", lambda file, tokenizer: compared.append(file))
    config = PolicyConfig(base=str(tiny_gguf), device="cpu", lora_layers=1, lora_rank=2, threads=1)
    for backend in ("torch", "llama", "llama"):
        base.load_base(replace(config, backend=backend), tmp_path)
    assert compared == [tiny_gguf]
