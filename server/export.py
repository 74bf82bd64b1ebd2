"""Export: a version as other tools load it, with a model card. Only of a manifest that verifies.

``peft`` is a folder for plain peft, ``gguf-lora`` an adapter for plain llama.cpp, ``gguf-merged`` a whole model for it.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from ..policies.lora import Heads, write_gguf_lora
from ..policies.model_files import find_model, model_digest
from ..protocol.errors import ConfigError, ModelError, VersionError
from ..protocol.fleet.membership import FLEET_KEY
from ..protocol.host.files import write_whole
from ..protocol.records.json_codec import to_json
from ..protocol.versions import Manifest
from .gguf_merge import KINDS, heads_in, merge
from .learner import Adapter
from .model_card import PRIVACY_CARDS, model_card
from .registry import MANIFEST, SIGNATURE, WEIGHTS, load_adapter
from .summary import NAME, read_summary

ADAPTER_CONFIG, CARD = "adapter_config.json", "README.md"
FORMATS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"peft": ("f32",), "gguf-lora": ("f16", "f32"), "gguf-merged": KINDS}
)
"""What can be exported, and in which kinds of numbers; the first is the default."""


@dataclass(frozen=True, slots=True)
class Source:
    """A version that verifies, and what lies around it.

    Parameters
    ----------
    folder
        Of the version; its run is two levels up.
    signed
        Whether its manifest's signature was checked: only where the fleet's public key is at hand.
    """

    folder: Path
    manifest: Manifest
    adapter: Adapter
    signed: bool

    @property
    def run(self) -> Path:
        """Folder of the run that made the version."""
        return self.folder.absolute().parent.parent

    def promise(self) -> Mapping[str, Any]:
        """Read what the run promised its devices, if its summary is there."""
        if not (self.run / NAME).exists():
            return {}
        summary = read_summary(self.run)
        return {**to_json(summary.privacy), "plaintext": summary.plaintext}


def export(folder: Path, to: str, quantise: str, base: str, out: Path) -> Path:
    """Write a version in another format, with its model card, into a folder.

    Parameters
    ----------
    to, quantise
        One of `FORMATS`, and one of its kinds; without a kind, the first.
    base
        The base model as ``policy.base`` names it.
    out
        Must be empty or not there.

    Raises
    ------
    VersionError
        If manifest, weights and signature do not hold together.
    ModelError
        If the base model is another than the version's, or the format cannot be made of it.
    ConfigError
        If the folder is not empty, or format and kind do not go together.
    """
    kind = quantise or FORMATS[to][0]
    if kind not in FORMATS[to]:
        raise ConfigError(f"--to {to} can be written as {' or '.join(FORMATS[to])}, not as {kind}")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ConfigError(f"{out} is not empty: choose another folder with --out")
    source = verified(folder)
    model = checked_base(base, source.manifest)
    WRITERS[to](source, model, kind, out)
    for path in (folder / MANIFEST, folder / SIGNATURE, *(source.run / name for name in PRIVACY_CARDS)):
        if path.exists():
            write_whole(out / path.name, path.read_bytes())
    page = model_card(source.manifest, to, kind, model.name, source.signed, source.promise(), out)
    write_whole(out / CARD, page.encode())
    return out


def verified(folder: Path, fleet_key: bytes | None = None) -> Source:
    """Read a version whose manifest holds; its signature is checked if a key is given or lies with its run.

    Raises
    ------
    VersionError
        If it does not hold, or there is none.
    """
    if not (folder / MANIFEST).exists():
        raise VersionError(f"{folder} has no {MANIFEST}: give the folder of a version, RUN/versions/VERSION")
    beside = folder.absolute().parent.parent / "keys" / FLEET_KEY
    if fleet_key is None and beside.exists():
        fleet_key = bytes.fromhex(beside.read_text(encoding="ascii"))
    _, adapter = load_adapter(folder, fleet_key)
    manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    if "weights" in adapter:
        raise VersionError(f"version {manifest.version} has no language model: it is a table of tactics, in {folder}")
    return Source(folder, manifest, adapter, fleet_key is not None)


def checked_base(base: str, manifest: Manifest) -> Path:
    """Find the base model, and refuse another than the version's."""
    model = find_model(base)
    # A policy that writes freely has the style of its prompt behind the digest.
    if model_digest(model) != manifest.base.partition(" ")[0]:
        raise ModelError(f"{model} is not the base of version {manifest.version}: name the right one with --base")
    return model


def _write_peft(source: Source, model: Path, kind: str, out: Path) -> None:
    """Copy weights and configuration; the path of the base model here means nothing elsewhere."""
    config = json.loads((source.folder / ADAPTER_CONFIG).read_text(encoding="utf-8"))
    write_whole(out / ADAPTER_CONFIG, json.dumps({**config, "base_model_name_or_path": model.name}, indent=2).encode())
    shutil.copyfile(source.folder / WEIGHTS, out / WEIGHTS)


def _write_lora(source: Source, model: Path, kind: str, out: Path) -> None:
    write_gguf_lora(out / "adapter.gguf", source.adapter, heads_of(model), half=kind == "f16")


def _write_merged(source: Source, model: Path, kind: str, out: Path) -> None:
    if model.is_dir():
        raise ModelError(f"--to gguf-merged needs a GGUF file as base, but {model} is a folder: merge it with peft")
    merge(model, source.adapter, out / "model.gguf", kind)


def heads_of(model: Path) -> Heads:
    """Count the heads of a model, in a GGUF file or a Hugging Face folder."""
    if not model.is_dir():
        return heads_in(model)
    config = json.loads((model / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "llama":
        raise ModelError(f"{model} is a {config.get('model_type')}: adapters of Llamas only can be written as GGUF")
    heads = int(config["num_attention_heads"])
    return Heads(heads, int(config.get("num_key_value_heads", heads)))


WRITERS: Mapping[str, Callable[[Source, Path, str, Path], None]] = MappingProxyType(
    {"peft": _write_peft, "gguf-lora": _write_lora, "gguf-merged": _write_merged}
)
