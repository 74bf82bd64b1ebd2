"""What every test may use."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from logging import INFO, getLogger
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from fedoel.protocol.plugins import PLUGINS

HIDDEN, INNER, LAYERS, HEADS, KEY_HEADS = 64, 96, 4, 4, 2
TEXT = Path(__file__).parents[1] / "server" / "probes" / "general.md"
# Sizes of a head: transformers takes no others from GGUF files.
SIZES = {"llama": 16, "qwen2": 16, "qwen3": 128, "gemma3": 256}
MERGES = ["Ġ t", "Ġt a", "k e", "Ġta ke", "g o", "Ġ e", "i n", "o o", "Ġ c", "c o", "Ġc o"]
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


# Two threads of torch are slower than one as soon as anything else runs, such as the tests' other process.
os.environ.setdefault("OMP_NUM_THREADS", "1")

# No deadline for an example and for drawing it: how long one takes says more about what else the machine does.
settings.register_profile("fedoel", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("fedoel")


@pytest.fixture(scope="session", autouse=True)
def interrupts() -> Iterator[None]:
    """Let subprocesses be interrupted also where the tests run in the background, with SIGINT ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(scope="session", autouse=True)
def no_waiting_for_the_disk() -> Iterator[None]:
    """Let `fsync` return at once: a small run calls it a hundred times, and waits for it longer than it computes.

    Only a power failure could show the difference. What is forced to the disk, and when, tests see by their own spies.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", lambda descriptor: None)
        yield


@pytest.fixture(autouse=True)
def flower_log() -> None:
    """Let Flower log what it logs by itself, whatever an earlier test in this process has made of its logger."""
    flower = getLogger("flwr")
    flower.setLevel(INFO)
    flower.disabled = False


@pytest.fixture(autouse=True)
def search_path() -> Iterator[None]:
    """Forget the working folders that commands add to the search path: a later test would import from them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv(PLUGINS, "")  # so that it is put back, whatever a test makes of it
        patch.delenv(PLUGINS)
        yield


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Where compiled games and prepared models are kept, as FEDOEL_CACHE, which subprocesses inherit.

    FEDOEL_TEST_CACHE names a folder that outlives the session, for those who run the tests often. Processes that run a
    session together share its folder.
    """
    kept, base = os.environ.get("FEDOEL_TEST_CACHE"), tmp_path_factory.getbasetemp()
    session = base.parent if "PYTEST_XDIST_WORKER" in os.environ else base
    folder = Path(kept) if kept else session / "cache"
    folder.mkdir(parents=True, exist_ok=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("FEDOEL_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session")
def tiny_gguf(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random Llama with a byte-level tokenizer in a GGUF file, which both backends read."""
    path = tmp_path_factory.mktemp("tiny-gguf") / "tiny.gguf"
    write_tiny_gguf(path)
    return path


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Hugging Face folder with a tiny random Llama and a byte-level tokenizer with a chat template."""
    import torch
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    folder = tmp_path_factory.mktemp("tiny")
    special = ["<|im_end|>", "<|im_start|>"]
    # Merged bytes make prompts a third as long, and tests several times as fast: attention grows with the square.
    trainer = trainers.BpeTrainer(
        vocab_size=800, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )  # fmt: skip
    core = Tokenizer(models.BPE())
    core.pre_tokenizer, core.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    core.train([str(TEXT)], trainer)
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, eos_token=special[0])
    tokenizer.chat_template = TEMPLATE
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=core.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=4096,
        eos_token_id=0,
        pad_token_id=0,
        bos_token_id=1,
        initializer_range=0.3,
    )
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def write_tiny_gguf(path: Path, architecture: str = "llama") -> None:
    """Write a tiny random model as llama.cpp's own converter would."""
    import gguf
    import numpy as np

    from fedoel.policies.lora import permuted

    writer = gguf.GGUFWriter(path, architecture)
    _describe(writer)
    _tokenizer(writer)
    rng = np.random.default_rng(0)
    for name, (rows, columns) in _shapes(len(_vocabulary()), SIZES[architecture]).items():
        weights = rng.normal(0, 0.1 if "embd" in name else 0.2, (rows, columns)).astype(np.float32)
        if architecture == "llama" and (".attn_q." in name or ".attn_k." in name):
            weights = permuted(weights, HEADS if ".attn_q." in name else KEY_HEADS)
        writer.add_tensor(name, weights)
    for name, size in _vectors(architecture).items():
        writer.add_tensor(name, rng.uniform(0.5, 1.5, size).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _vectors(architecture: str) -> dict[str, int]:
    size = SIZES[architecture]
    head_norms = {"attn_q_norm.weight": size, "attn_k_norm.weight": size}
    more = {
        "qwen2": {"attn_q.bias": HEADS * size, "attn_k.bias": KEY_HEADS * size, "attn_v.bias": KEY_HEADS * size},
        "qwen3": head_norms,
        "gemma3": {**head_norms, "post_attention_norm.weight": HIDDEN, "post_ffw_norm.weight": HIDDEN},
    }
    layer = {"attn_norm.weight": HIDDEN, "ffn_norm.weight": HIDDEN, **more.get(architecture, {})}
    layers = {f"blk.{n}.{name}": length for n in range(LAYERS) for name, length in layer.items()}
    return {"output_norm.weight": HIDDEN, **layers}


def _describe(writer: Any) -> None:
    writer.add_type("model")
    writer.add_name("tiny")
    writer.add_block_count(LAYERS)
    writer.add_context_length(4096)
    writer.add_embedding_length(HIDDEN)
    writer.add_feed_forward_length(INNER)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(KEY_HEADS)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_freq_base(10_000.0)
    size = SIZES[writer.arch]
    writer.add_rope_dimension_count(size)
    writer.add_key_length(size)
    writer.add_value_length(size)
    if writer.arch == "gemma3":
        writer.add_sliding_window(24)
    writer.add_vocab_size(len(_vocabulary()))
    writer.add_file_type(0)


def _tokenizer(writer: Any) -> None:
    tokens = _vocabulary()
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("gpt-2")
    writer.add_token_list(tokens)
    writer.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    writer.add_token_merges(MERGES)
    writer.add_eos_token_id(0)
    writer.add_bos_token_id(1)
    writer.add_pad_token_id(0)
    writer.add_unk_token_id(0)
    writer.add_add_bos_token(False)
    writer.add_chat_template(TEMPLATE)


def _vocabulary() -> list[str]:
    from tokenizers import pre_tokenizers

    merged = ["".join(pair.split(" ")) for pair in MERGES]
    return ["<|im_end|>", "<|im_start|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), *merged]


def _shapes(tokens: int, size: int) -> dict[str, tuple[int, int]]:
    layer = {
        "attn_q": (HEADS * size, HIDDEN), "attn_k": (KEY_HEADS * size, HIDDEN), "attn_v": (KEY_HEADS * size, HIDDEN),
        "attn_output": (HIDDEN, HEADS * size), "ffn_gate": (INNER, HIDDEN), "ffn_up": (INNER, HIDDEN),
        "ffn_down": (HIDDEN, INNER),
    }  # fmt: skip
    layers = {f"blk.{n}.{name}.weight": shape for n in range(LAYERS) for name, shape in layer.items()}
    return {"token_embd.weight": (tokens, HIDDEN), **layers}
