"""Merging a LoRA adapter into its base model, ``W + 2 B A``, as one GGUF file; needs only the package gguf."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..policies.lora import ARCHITECTURE, Heads, deltas
from ..policies.model_files import draft_of
from ..protocol.errors import ModelError
from .learner import Adapter

KINDS = ("f16", "f32", "bf16", "q8_0")
READER_ONLY = "GGUF."  # prefix of fields that the reader adds and that are not in the file
REPLACED = ("general.architecture", "general.file_type")


def merge(base: Path, adapter: Adapter, out: Path, kind: str) -> None:
    """Write the base model with the adapter added to its weights.

    Parameters
    ----------
    kind
        Number type of all matrices, one of `KINDS`. Metadata is copied.

    Raises
    ------
    ModelError
        If the base is not a GGUF file of a Llama model, the adapter does not fit it, or the file cannot be written.
    """
    import gguf

    reader = _open(base)
    added = {delta.name: delta.matrix for delta in deltas(adapter, _heads(reader, base))}
    if unknown := set(added) - {tensor.name for tensor in reader.tensors}:
        raise ModelError(f"the adapter has layers that {base} lacks, such as {min(unknown)}: it has another base model")
    target = gguf.GGMLQuantizationType[kind.upper()]
    with draft_of(out) as draft:
        writer = gguf.GGUFWriter(draft, ARCHITECTURE)
        writer.add_file_type(gguf.LlamaFileType["ALL_F32" if kind == "f32" else f"MOSTLY_{kind.upper()}"])
        for field in reader.fields.values():
            if not field.name.startswith(READER_ONLY) and field.name not in REPLACED:
                inner = field.types[-1] if len(field.types) > 1 else None
                writer.add_key_value(field.name, field.contents(), field.types[0], sub_type=inner)
        for tensor in reader.tensors:
            _add(writer, tensor, added.get(tensor.name), target)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()


def _add(writer: Any, tensor: Any, added: Any, kind: Any) -> None:
    """Add one tensor to the file; vectors are written in float32."""
    from gguf.quants import QuantError, dequantize, quantize

    weights = dequantize(tensor.data, tensor.tensor_type)
    if weights.ndim == 1:
        writer.add_tensor(tensor.name, weights.astype(np.float32))
        return
    if added is not None:
        if added.shape != weights.shape:
            raise ModelError(f"the adapter's {tensor.name} is {added.shape}, the base's {weights.shape}: another model")
        weights = weights + added
    try:
        writer.add_tensor(tensor.name, quantize(weights, kind), raw_dtype=kind)
    except QuantError as error:
        raise ModelError(f"{tensor.name} cannot be written as {kind.name.lower()}: {error}; choose f16") from error


def heads_in(base: Path) -> Heads:
    """Return the numbers of attention heads of a Llama in a GGUF file; raises as `merge` does."""
    return _heads(_open(base), base)


def _open(base: Path) -> Any:
    import gguf

    try:
        return gguf.GGUFReader(base)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{base} cannot be read as a GGUF model: {error}") from error


def _heads(reader: Any, base: Path) -> Heads:
    def value(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    if value("general.architecture") != ARCHITECTURE:
        raise ModelError(f"{base} is a {value('general.architecture')}: only Llama models can be written as GGUF")
    heads = int(value(f"{ARCHITECTURE}.attention.head_count"))
    return Heads(heads, int(value(f"{ARCHITECTURE}.attention.head_count_kv") or heads))
