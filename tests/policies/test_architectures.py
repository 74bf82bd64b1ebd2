"""Every architecture is computed as transformers does it, or refused by its name; tiny random models stand for them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fedoel.policies.torch import base
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ModelError

from .test_torch_policy import by_hand, situations

COMMON: dict[str, Any] = {
    "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 512, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 0,
}  # fmt: skip
ROPE = {
    "rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "rope_theta": 10000.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip
OTHER_NAMES = {"n_embd": 32, "n_layer": 4, "n_head": 4, "n_positions": 512}
EXACT: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama with a longer rope": {"rope_parameters": ROPE},
    "qwen2 with a window in some layers": {"use_sliding_window": True, "sliding_window": 24, "max_window_layers": 1},
    "qwen3": {"head_dim": 16, "tie_word_embeddings": True},
    "mistral with a window": {"sliding_window": 24},
    "gemma": {"head_dim": 16},
    "gemma3_text": {
        "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 24,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
    },
    "phi3": {},
    "smollm3": {"no_rope_layers": [1, 0, 1, 1]},
    "olmo2": {},
    "qwen3_moe": {"head_dim": 16, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32},
}  # fmt: skip
REFUSED: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": (
        "Gemma2",
        {"head_dim": 16, "sliding_window": 24, "query_pre_attn_scalar": 16, "final_logit_softcapping": 0.5},
    ),
    "granite": ("Granite", {"embedding_multiplier": 12.0, "logits_scaling": 8.0, "residual_multiplier": 0.22}),
    "cohere": ("Cohere", {"logit_scale": 0.0625}),
    "stablelm": ("StableLm", {}),
    "gpt2": ("GPT2", OTHER_NAMES),
    "gpt_neox": ("GPTNeoX", {}),
    "lfm2": ("Lfm2", {"layer_types": ["conv", *["full_attention"] * 3]}),
}  # fmt: skip


def made(name: str, settings: dict[str, Any], tiny_base: Path, folder: Path) -> Path:
    """A tiny random model of an architecture, with the tokenizer of the tests."""
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    common = {} if settings is OTHER_NAMES else COMMON
    config = AutoConfig.for_model(name.split()[0], **{**common, "vocab_size": len(tokenizer), **settings})
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config)
    for parameter in model.parameters():
        if parameter.ndim > 1:
            parameter.data.mul_(8)  # so that attention is not uniform
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


def policy(base: Path) -> PolicyConfig:
    return PolicyConfig(base=str(base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)


@pytest.mark.parametrize("name", EXACT)
def test_these_architectures_are_computed_as_transformers_does_it(name: str, tiny_base: Path, tmp_path: Path) -> None:
    folder = made(name, EXACT[name], tiny_base, tmp_path)
    loaded = load_base(policy(folder), tmp_path / "cache")
    model = TorchModel(loaded, 64)
    model.load({})
    plain = AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager", dtype=torch.float32).eval()
    for situation, scores in zip(situations(), model.score(situations()), strict=True):
        assert np.allclose(scores, by_hand(plain, model, situation), atol=1e-3)


@pytest.mark.parametrize("name", REFUSED)
def test_other_architectures_are_refused_by_name(name: str, tiny_base: Path, tmp_path: Path) -> None:
    class_name, settings = REFUSED[name]
    folder = made(name, settings, tiny_base, tmp_path)
    for _ in range(2):  # nothing is remembered of a model that was refused
        with pytest.raises(ModelError, match=rf"policy.base is a {class_name}\w+, wh(ich is not|ose log-prob)"):
            load_base(policy(folder), tmp_path / "cache")


def test_a_model_that_was_found_exact_is_not_compared_again(
    tiny_base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load_base(policy(tiny_base), tmp_path)
    monkeypatch.setattr(base, "check_exact", None)
    load_base(policy(tiny_base), tmp_path)
