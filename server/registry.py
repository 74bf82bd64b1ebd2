"""Versions on disk: a folder for each, named by its content, with its weights, manifest and signature."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Protocol

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from ..protocol.errors import FedoelError, VersionError
from ..protocol.host.files import make_folder, move_into_place
from ..protocol.signing import check_manifest, sign_manifest
from ..protocol.versions import Manifest
from .learner import Adapter

WEIGHTS = "adapter_model.safetensors"
MANIFEST, SIGNATURE = "manifest.json", "manifest.sig"
DRAFT = "making-"  # begins the name of a version that is being written; one that a crash left is no version
VERSIONS = "versions"  # folder of versions in the folder of a run


class Describes(Protocol):
    """What `save_version` needs of a `fedoel.server.learner.Learner`."""

    def describe(self, folder: Path) -> None:
        """Write the files that a reader of the adapter's folder needs in addition to the weights."""


def save_version(
    versions: Path, manifest: Manifest, adapter: Adapter, learner: Describes, key: Ed25519PrivateKey | None = None
) -> Path:
    """Write a version's folder atomically, unless it exists already.

    Parameters
    ----------
    learner
        Writes what else belongs into the folder.
    key
        Private key that signs the manifest, which holds the hash of the weights; None leaves it unsigned.

    Raises
    ------
    FedoelError
        If the folder cannot be written.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    folder = versions / manifest.version
    if folder.exists():
        return folder
    try:
        make_folder(versions)
        work = Path(tempfile.mkdtemp(dir=versions, prefix=DRAFT))
        try:
            save_file(dict(adapter), str(work / WEIGHTS))
            learner.describe(work)
            (work / MANIFEST).write_text(manifest.to_json(), encoding="utf-8")
            if key is not None:
                (work / SIGNATURE).write_bytes(sign_manifest(key, manifest.to_json()))
            move_into_place(work, folder)
        finally:
            shutil.rmtree(work, ignore_errors=True)
    except (OSError, SafetensorError) as error:  # safetensors raises its own class when a disk is full
        raise FedoelError(
            f"version {manifest.version} cannot be kept in {versions}: {error}; make room and go on with --resume"
        ) from error
    return folder


def load_adapter(folder: Path, fleet_key: bytes | None = None) -> tuple[str, dict[str, NDArray[Any]]]:
    """Read a version's weights and verify them against its manifest, and return its name and weights.

    A PEFT folder without a manifest is accepted if no key is given; its version is the empty string.

    Parameters
    ----------
    fleet_key
        Public key that must have signed the manifest; None accepts an unsigned one.

    Raises
    ------
    VersionError
        If weights are missing, damaged or do not match the manifest, or the signature does not verify.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        adapter = load_file(str(folder / WEIGHTS))
    except (OSError, SafetensorError) as error:
        raise VersionError(f"{folder / WEIGHTS} cannot be read ({error}); give the folder of an adapter") from error
    if not (folder / MANIFEST).exists() and fleet_key is None:
        return "", adapter
    manifest = load_manifest(folder, fleet_key)
    manifest.check(adapter)
    return manifest.version, adapter


def load_manifest(folder: Path, fleet_key: bytes | None = None) -> Manifest:
    """Read a version's manifest and, if a key is given, verify its signature.

    Raises
    ------
    VersionError
        If it is missing or damaged, or the signature does not verify.
    """
    text = (folder / MANIFEST).read_text(encoding="utf-8") if (folder / MANIFEST).exists() else ""
    if fleet_key is not None:
        signature = folder / SIGNATURE
        check_manifest(fleet_key, signature.read_bytes() if signature.exists() else b"", text)
    return Manifest.from_json(text)
