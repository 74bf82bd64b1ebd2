"""A base model that cannot be used is refused before a run begins."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ModelError
from fedoel.simulations.inprocess import check


def test_a_base_that_is_not_computed_exactly_leaves_no_run_folder(tiny_base: Path, tmp_path: Path, cache: Path) -> None:
    tokenizer = AutoTokenizer.from_pretrained(tiny_base)
    torch.manual_seed(0)
    config = AutoConfig.for_model(
        "granite", hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=2, vocab_size=len(tokenizer), logits_scaling=8.0, pad_token_id=0,
    )  # fmt: skip
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "granite")
    tokenizer.save_pretrained(tmp_path / "granite")
    run = RunConfig.from_flat({
        "policy.base": str(tmp_path / "granite"), "policy.lora-layers": 1, "policy.device": "cpu",
        "games.families": "tidy things=1 final=0 turns=8", "out": str(tmp_path / "run"), "cache": str(cache),
    })  # fmt: skip
    with pytest.raises(ModelError, match="GraniteForCausalLM"):
        check(run)
    assert not (tmp_path / "run").exists()
