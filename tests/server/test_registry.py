"""Versions on disk: signed by the fleet's owner, and refused when anything about them is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from safetensors.numpy import save_file

from fedoel.protocol.errors import VersionError
from fedoel.protocol.versions import Manifest
from fedoel.server.registry import MANIFEST, SIGNATURE, WEIGHTS, load_adapter, save_version
from fedoel.server.tactics_learner import TacticsLearner

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
KEY = OWNER.public_key().public_bytes_raw()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    learner = TacticsLearner()
    adapter = learner.warm_start([], lambda n: None)
    version = learner.policy(adapter).version
    manifest = Manifest(version, "", learner.base, 0, "tactics", (), 0, None)
    return save_version(tmp_path, manifest, adapter, learner, OWNER)


def test_a_signed_version_is_loaded(folder: Path) -> None:
    assert load_adapter(folder, KEY)[0] == folder.name == load_adapter(folder)[0]


def test_another_signer_is_refused(folder: Path) -> None:
    with pytest.raises(VersionError, match="not signed by this fleet's key"):
        load_adapter(folder, Ed25519PrivateKey.generate().public_key().public_bytes_raw())


def test_a_manifest_that_was_changed_is_refused(folder: Path) -> None:
    fields = json.loads((folder / MANIFEST).read_text())
    (folder / MANIFEST).write_text(json.dumps(fields | {"cohort": 1000}))
    with pytest.raises(VersionError, match="was changed"):
        load_adapter(folder, KEY)


def test_weights_that_were_changed_are_refused(folder: Path) -> None:
    weights = load_adapter(folder)[1]["weights"]
    save_file({"weights": weights + np.float32(1)}, str(folder / WEIGHTS))
    with pytest.raises(VersionError, match="the adapter was changed"):
        load_adapter(folder, KEY)


@pytest.mark.parametrize("missing", [MANIFEST, SIGNATURE])
def test_an_unsigned_version_is_refused(folder: Path, missing: str) -> None:
    (folder / missing).unlink()
    with pytest.raises(VersionError, match="not signed"):
        load_adapter(folder, KEY)
