"""Export of a verified version, with a model card, in formats that other tools load.

``peft`` is a folder for peft, ``gguf-lora`` an adapter file for llama.cpp, and ``gguf-merged`` a complete model file
for llama.cpp.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ..policies.lora import Target, deltas, write_gguf_lora
from ..policies.model_files import draft_of, find_model, model_digest
from ..protocol.errors import ConfigError, ModelError, VersionError
from ..protocol.fleet.membership import FLEET_KEY, read_fleet_key
from ..protocol.host.files import write_whole
from ..protocol.records.json_codec import to_json
from ..protocol.versions import Manifest
from .learner import Adapter
from .model_card import PRIVACY_CARDS, model_card
from .registry import MANIFEST, SIGNATURE, WEIGHTS, load_adapter
from .summary import NAME, read_summary

ADAPTER_CONFIG, CARD = "adapter_config.json", "README.md"
READER_ONLY = "GGUF."  # prefix of fields that the reader adds and that are not in the file
REPLACED = ("general.architecture", "general.file_type")
FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"peft": ("f32",), "gguf-lora": ("f16", "f32"), "gguf-merged": ("f16", "f32", "bf16", "q8_0")}
)
"""Number types that each format can be written in; the first is the default."""


@dataclass(frozen=True, slots=True)
class Source:
    """A verified version to export.

    Parameters
    ----------
    folder
        The version's folder; its run's folder is two levels up.
    signed
        Whether the manifest's signature was verified, which needs the fleet's public key.
    """

    folder: Path
    manifest: Manifest
    adapter: Adapter
    signed: bool

    @property
    def run(self) -> Path:
        """The folder of the run that made the version."""
        return self.folder.absolute().parent.parent

    def promise(self) -> Mapping[str, Any]:
        """Read the privacy terms of the run from its summary; empty if there is no summary."""
        if not (self.run / NAME).exists():
            return {}
        summary = read_summary(self.run)
        return {**to_json(summary.privacy), "plaintext": summary.plaintext}


def export(folder: Path, to: str, quantise: str, base: str, out: Path) -> Path:
    """Write a version in another format, with its model card, into a folder.

    Parameters
    ----------
    to
        A format in `FORMATS`.
    quantise
        A number type of that format; empty for the default.
    base
        The base model, as in ``policy.base``.
    out
        A folder that is empty or does not exist.

    Raises
    ------
    VersionError
        If weights or signature do not match the manifest.
    ModelError
        If this is not the version's base model, or cannot be written in this format.
    ConfigError
        If the folder is not empty, or the format does not have this number type.
    """
    number_type = quantise or FORMATS[to][0]
    if number_type not in FORMATS[to]:
        raise ConfigError(f"--to {to} can be written as {' or '.join(FORMATS[to])}, not as {number_type}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty: choose another folder with --out")
    source, model = verified(folder), find_model(base)
    # For free decoding, the manifest appends the style of the prompt to the digest.
    if model_digest(model) != source.manifest.base.partition(" ")[0]:
        version = source.manifest.version
        raise ModelError(f"{model} is not the base of version {version}: name the right one with --base")
    WRITERS[to](source, model, number_type, out)
    for path in (folder / MANIFEST, folder / SIGNATURE, *(source.run / name for name in PRIVACY_CARDS)):
        if path.exists():
            write_whole(out / path.name, path.read_bytes())
    page = model_card(source.manifest, to, number_type, model.name, source.signed, source.promise(), out)
    write_whole(out / CARD, page.encode())
    return out


def verified(folder: Path, fleet_key: bytes | None = None) -> Source:
    """Read a version and verify it against its manifest.

    The signature is verified if a key is given or is found in the run's folder.

    Raises
    ------
    VersionError
        If there is no manifest, verification fails, or the version has no language model.
    """
    if not (folder / MANIFEST).exists():
        raise VersionError(f"{folder} has no {MANIFEST}: give the folder of a version, RUN/versions/VERSION")
    keys = folder.absolute().parent.parent / "keys"
    if fleet_key is None and (keys / FLEET_KEY).exists():
        fleet_key = read_fleet_key(keys)
    _, adapter = load_adapter(folder, fleet_key)
    manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    if "weights" in adapter:
        raise VersionError(f"version {manifest.version} in {folder} has no language model: it is a table of tactics")
    return Source(folder, manifest, adapter, fleet_key is not None)


def _write_peft(source: Source, model: Path, number_type: str, out: Path) -> None:
    """Copy weights and configuration, with the base model's name in place of its local path."""
    config = json.loads((source.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_whole(out / ADAPTER_CONFIG, json.dumps({**config, "base_model_name_or_path": model.name}, indent=2).encode())
    shutil.copyfile(source.folder / WEIGHTS, out / WEIGHTS)


def _write_lora(source: Source, model: Path, number_type: str, out: Path) -> None:
    write_gguf_lora(out / "adapter.gguf", source.adapter, _target(model), half=number_type == "f16")


def _target(model: Path) -> Target:
    """Return what adapters for a GGUF file or a Hugging Face folder must be like."""
    if not model.is_dir():
        return _target_of(_open(model))
    return Target.of_folder(json.loads((model / "config.json").read_text(encoding="utf-8")))


def _write_merged(source: Source, base: Path, number_type: str, out: Path) -> None:
    """Write the base model with the adapter added to its weights, ``W + 2 B A``; metadata is copied."""
    if base.is_dir():
        raise ModelError(f"--to gguf-merged needs a GGUF file as base, but {base} is a folder: merge it with peft")
    import gguf

    reader = _open(base)
    model = _target_of(reader)
    added = {delta.name: delta.matrix for delta in deltas(source.adapter, model)}
    if unknown := set(added) - {tensor.name for tensor in reader.tensors}:
        raise ModelError(f"the adapter has layers that {base} lacks, such as {min(unknown)}: it has another base model")
    target = gguf.GGMLQuantizationType[number_type.upper()]
    with draft_of(out / "model.gguf") as draft:
        writer = gguf.GGUFWriter(draft, model.architecture)
        writer.add_file_type(gguf.LlamaFileType["ALL_F32" if number_type == "f32" else f"MOSTLY_{number_type.upper()}"])
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


def _open(base: Path) -> Any:
    import gguf

    try:
        return gguf.GGUFReader(base)
    except (OSError, ValueError, IndexError) as error:
        raise ModelError(f"{base} cannot be read as a GGUF model: {error}") from error


def _target_of(reader: Any) -> Target:
    def value(key: str) -> Any:
        field = reader.get_field(key)
        return None if field is None else field.contents()

    name = str(value("general.architecture") or "")
    heads = int(value(f"{name}.attention.head_count") or 0)
    return Target(name, heads, int(value(f"{name}.attention.head_count_kv") or heads))


WRITERS: Mapping[str, Callable[[Source, Path, str, Path], None]] = MappingProxyType(
    {"peft": _write_peft, "gguf-lora": _write_lora, "gguf-merged": _write_merged}
)
