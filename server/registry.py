"""The registry of a run: every version in a folder of its own, weights beside their manifest."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from ..protocol.errors import FedoelError, VersionError
from ..protocol.versions import Manifest
from .learner import Adapter, Learner

WEIGHTS = "adapter_model.safetensors"
MANIFEST = "manifest.json"


def save_version(versions: Path, manifest: Manifest, adapter: Adapter, learner: Learner) -> Path:
    """Write a version's folder, whole or not at all; one that is there already is left as it is.

    Raises
    ------
    FedoelError
        If the disk refuses it.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = versions / manifest.version
    if folder.exists():
        return folder
    try:
        versions.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(dir=versions, prefix="making-"))
        try:
            save_file(dict(adapter), str(work / WEIGHTS))
            learner.describe(work)
            (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            os.replace(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors says in its own class that a disk is full
        raise FedoelError(
            f"version {manifest.version} cannot be kept in {versions}: {error}; make room and go on with --resume"
        ) from error
    return folder


def load_adapter(folder: Path) -> tuple[str, dict[str, NDArray[Any]]]:
    """Read a version's weights, checked against its manifest; a plain PEFT folder has no manifest and no version.

    Raises
    ------
    VersionError
        If weights are missing or damaged, or are not those of the manifest.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        adapter = load_file(str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise VersionError(f"{folder / WEIGHTS} cannot be read ({error}); give the folder of an adapter") from error
    if not (folder / MANIFEST).exists():
        return "", adapter
    manifest = Manifest.from_json((folder / MANIFEST).read_text(encoding="utf-8"))
    manifest.check(adapter)
    return manifest.version, adapter
