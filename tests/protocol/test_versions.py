from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest

from fedoel.protocol.errors import VersionError
from fedoel.protocol.records.summary import Lesson
from fedoel.protocol.versions import Manifest, policy_version

ADAPTER = {"a": np.arange(4, dtype=np.float32), "b": np.ones((2, 2), dtype=np.float32)}
VERSION = policy_version("base", ADAPTER)
MANIFEST = Manifest(VERSION, "", "base", 0, "tactics", (Lesson("take", 1.0, 3.0),), 8, None)


def test_a_manifest_survives_serialisation() -> None:
    assert Manifest.from_json(MANIFEST.to_json()) == MANIFEST
    MANIFEST.check(ADAPTER)


@pytest.mark.parametrize("name", ["a", "b"])
def test_changed_weights_are_refused(name: str) -> None:
    changed = {**ADAPTER, name: ADAPTER[name] + np.float32(1e-6)}
    with pytest.raises(VersionError, match="the adapter was changed"):
        MANIFEST.check(changed)


def test_a_version_depends_on_base_names_types_and_shapes() -> None:
    others = [
        policy_version("other", ADAPTER),
        policy_version("base", {"a": ADAPTER["a"]}),
        policy_version("base", {**ADAPTER, "a": ADAPTER["a"].astype(np.float16)}),
        policy_version("base", {**ADAPTER, "b": ADAPTER["b"].reshape(4)}),
    ]
    assert len({VERSION, *others}) == 5


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"version": 1}', "null", "[" * 100_000])
def test_a_broken_manifest_is_refused(text: str) -> None:
    with pytest.raises(VersionError):
        Manifest.from_json(text)


def test_another_base_is_refused() -> None:
    with pytest.raises(VersionError, match="fetch it again"):
        replace(MANIFEST, base="other").check(ADAPTER)


def test_a_manifest_of_the_first_schema_is_read() -> None:
    stats = {"win_rate": 0.5, "low": 0, "high": 1, "episodes": 8, "score": 1, "turns_per_win": 3, "tokens_per_win": 9}
    fields = {key: value for key, value in json.loads(MANIFEST.to_json()).items() if key != "schema"}
    assert Manifest.from_json(json.dumps({**fields, "gate": {}})) == MANIFEST
    gate = {"current": stats, "teacher": stats, "candidate": stats, "reason": "it wins more"}
    read = Manifest.from_json(json.dumps({**fields, "gate": gate})).gate
    assert read is not None and read.reason == "it wins more" and read.teacher.tokens_per_win == 9.0


def test_missing_unknown_and_mistyped_fields_are_refused() -> None:
    fields = json.loads(MANIFEST.to_json())
    missing = {key: value for key, value in fields.items() if key != "gate"}
    changes = ({"colour": 1}, {"cycle": "0"}, {"lessons": 3}, {"schema": 3})
    for bad in (missing, *({**fields, **change} for change in changes)):
        with pytest.raises(VersionError):
            Manifest.from_json(json.dumps(bad))
