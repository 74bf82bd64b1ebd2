"""LoRA weights: from PEFT's names and row order to llama.cpp's. Needs numpy; writing a file needs gguf.

For the architecture ``llama``, rotary embeddings rotate pairs of neighbouring rows in llama.cpp, and the first with the
second half of a head's rows in transformers. Such GGUF files therefore hold the rows of Q and K in another order, and
so must the output rows of an adapter (its B). For the other architectures here, both rotate halves.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ModelError
from .model_files import draft_of

Floats = NDArray[np.float32]
Arrays = Mapping[str, NDArray[Any]]
ALPHA_PER_RANK = 2
REORDERED = "llama"  # the architecture whose rows of Q and K are in another order
ARCHITECTURES: Mapping[str, str] = MappingProxyType({
    "llama": REORDERED, "mistral": REORDERED, "qwen2": "qwen2", "qwen3": "qwen3", "gemma3_text": "gemma3",
})  # fmt: skip
"""llama.cpp's names of the architectures that adapters can be written for, by those of transformers."""
MODULES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_PEFT_NAME = re.compile(r"base_model\.model\.model\.layers\.(\d+)\.([a-z_]+\.[a-z_]+)\.lora_([AB])\.weight")


def lora_alpha(rank: int) -> float:
    """LoRA's alpha as PEFT defines it: every adapter of fedoel adds alpha / rank = 2 times B A."""
    return float(ALPHA_PER_RANK * rank)


@dataclass(frozen=True, slots=True)
class Target:
    """The GGUF model that an adapter is for: its architecture, and its numbers of query heads and key-value heads.

    Raises
    ------
    ModelError
        If it is not known how adapters of this architecture are written.
    """

    architecture: str
    queries: int
    keys: int

    def __post_init__(self) -> None:
        if self.architecture not in ARCHITECTURES.values():
            known = ", ".join(sorted(set(ARCHITECTURES.values())))
            name = self.architecture or "unknown"
            raise ModelError(f"adapters of {name} models cannot be written as GGUF, only those of {known}")

    @classmethod
    def of_folder(cls, config: Mapping[str, Any]) -> Target:
        """Return the target of a Hugging Face folder with this configuration."""
        kind, heads = str(config.get("model_type", "")), int(config.get("num_attention_heads", 0))
        return cls(ARCHITECTURES.get(kind, kind), heads, int(config.get("num_key_value_heads") or heads))

    def rotary_heads(self, matrix: str) -> int:
        """Return the number of heads whose rows are in another order in a matrix; 0 if none are."""
        return {"attn_q": self.queries, "attn_k": self.keys}.get(matrix, 0) if self.architecture == REORDERED else 0


@dataclass(frozen=True, slots=True)
class Delta:
    """An adapter's update ``2 B A`` of one matrix of a GGUF model, with rows in llama.cpp's order.

    Parameters
    ----------
    name
        Name of the matrix, e.g. ``"blk.29.attn_q.weight"``.
    a, b
        Shapes (rank, inputs) and (outputs, rank).
    """

    name: str
    a: Floats
    b: Floats

    @property
    def matrix(self) -> Floats:
        """The update, shape (outputs, inputs)."""
        product: Floats = self.b @ self.a
        return ALPHA_PER_RANK * product


def deltas(adapter: Arrays, target: Target) -> Iterator[Delta]:
    """Rename an adapter's matrices, and reorder their rows for llama.cpp where it needs that.

    Raises
    ------
    ModelError
        If names or shapes are not those of LoRA layers of such a model, or numbers are not finite.
    """
    pairs: dict[str, dict[str, Floats]] = {}
    for name, array in sorted(adapter.items()):
        match = _PEFT_NAME.fullmatch(name)
        if match is None or match[2] not in MODULES or array.ndim != 2:
            raise ModelError(f"the adapter holds {name!r} of shape {array.shape}: llama.cpp has no such LoRA layer")
        if not np.isfinite(array).all():
            raise ModelError(f"the adapter's {name!r} is not finite: fetch it again")
        pairs.setdefault(f"blk.{match[1]}.{MODULES[match[2]]}.weight", {})[match[3]] = np.asarray(array, np.float32)
    for name, pair in pairs.items():
        if set(pair) != {"A", "B"} or len(pair["A"]) != pair["B"].shape[1]:
            raise ModelError(f"the adapter's A and B for {name} do not fit each other: fetch it again")
        heads = target.rotary_heads(name.split(".")[2])
        yield Delta(name, pair["A"], permuted(pair["B"], heads) if heads else pair["B"])


def permuted(rows: Floats, heads: int) -> Floats:
    """Reorder the rows of a rotary projection for llama.cpp: interleave the halves of each head.

    Raises
    ------
    ModelError
        If the number of rows is not a multiple of twice the number of heads.
    """
    if len(rows) % (2 * heads):
        raise ModelError(f"the adapter's {len(rows)} rows are not those of {heads} heads: it was made for another base")
    return rows.reshape(heads, 2, len(rows) // heads // 2, -1).swapaxes(1, 2).reshape(rows.shape)


def write_gguf_lora(path: Path, adapter: Arrays, target: Target, half: bool = False) -> None:
    """Write an adapter as a GGUF file for llama.cpp, atomically.

    Parameters
    ----------
    half
        Whether to write weights in float16 instead of float32.

    Raises
    ------
    ModelError
        If it is not an adapter of such a model, or the file cannot be written.
    """
    import gguf

    parts = list(deltas(adapter, target))
    if len({len(part.a) for part in parts}) != 1:
        raise ModelError("an adapter needs LoRA layers, all of one rank, to be written as GGUF")
    with draft_of(path) as draft:
        writer = gguf.GGUFWriter(draft, target.architecture)
        writer.add_type(gguf.GGUFType.ADAPTER)
        writer.add_string(gguf.Keys.Adapter.TYPE, "lora")
        writer.add_float32(gguf.Keys.Adapter.LORA_ALPHA, lora_alpha(len(parts[0].a)))
        for part in parts:
            for letter, array in (("a", part.a), ("b", part.b)):
                writer.add_tensor(f"{part.name}.lora_{letter}", array.astype(np.float16) if half else array)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
