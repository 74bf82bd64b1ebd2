"""Files of a later release: a device, a run and a fleet refuse them with what to do, and leave them as they are."""

from __future__ import annotations

import io
import json
import sqlite3
import tomllib
from pathlib import Path

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256

from fedoel.cli.main import REFUSED, main
from fedoel.client.device.last_version import LAST as KEPT
from fedoel.client.device.last_version import last_version
from fedoel.client.device.record import DeviceRecord
from fedoel.client.store import TrajectoryStore
from fedoel.protocol.errors import ConfigError, EnrolmentError, FedoelError, StoreError, VersionError
from fedoel.protocol.fleet.enrolment import bundle_from_text
from fedoel.protocol.formats import BUNDLE, CONTRIBUTIONS, STORE
from fedoel.protocol.records.journal import FIRST, OPENED, new_line
from fedoel.server.fleet import owner_key
from fedoel.server.journal import Journal
from fedoel.server.operate.certificates import key_from_pem
from fedoel.server.run_folder import STORED, stored_config
from fedoel.server.safeguards import Ledger

from .conftest import LAST, unpacked


def numbered(path: Path, number: int) -> Path:
    """Make an SQLite file of a format."""
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE later (name TEXT)")
        database.execute(f"PRAGMA user_version = {number}")
    database.close()
    return path


def test_databases_of_later_releases_are_refused_and_left_alone(tmp_path: Path) -> None:
    store, record = (numbered(tmp_path / f"{n}.sqlite", n) for n in (STORE.current + 1, CONTRIBUTIONS.current + 7))
    whole = store.read_bytes(), record.read_bytes()
    with pytest.raises(StoreError, match=r"is of schema 3 and this fedoel reads up to 2: update fedoel"):
        TrajectoryStore(store, "client-0", bytes(32))
    with pytest.raises(StoreError, match=r"nothing may leave this device: .* is of schema 8 .*: update fedoel"):
        DeviceRecord(record).epsilon(1e-6)
    assert (store.read_bytes(), record.read_bytes()) == whole


def test_settings_a_ledger_and_a_journal_of_later_releases_are_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = unpacked(LAST, tmp_path) / "finished"
    settings, journal = run / STORED, Journal(run, run / "keys")
    assert journal.entries
    line = new_line(owner_key(run / "keys"), 1, FIRST, OPENED, {"schema": 2, "cycle": -1, "version": "", "config": ""})
    journal.path.write_bytes(line + b"\n")
    with pytest.raises(ConfigError, match=r"journal\.jsonl is of schema 2 and this fedoel reads up to 1: update"):
        _ = Journal(run, run / "keys").entries
    settings.write_text(json.dumps({**json.loads(settings.read_bytes()), "schema": 2}), encoding="utf-8")
    with pytest.raises(ConfigError, match=r"config\.json is of schema 2 and this fedoel reads up to 1: update"):
        stored_config(run)
    for verb in ("versions", "verify", "migrate"):
        assert main([verb, str(run)]) == REFUSED and "update fedoel" in capsys.readouterr().err
    ledger = run / "privacy.jsonl"
    ledger.write_text('{"kind": "ledger", "run": "ab", "schema": 2, "secret": 1}\n', encoding="utf-8")
    with pytest.raises(FedoelError, match=r"privacy\.jsonl is of schema 2 and this fedoel reads up to 1: update"):
        Ledger(ledger)


def test_a_kept_version_of_a_later_release_is_refused(tmp_path: Path) -> None:
    versions = unpacked(LAST, tmp_path) / "d0" / "versions"
    with np.load(versions / KEPT) as stored:
        arrays = {name: stored[name] for name in stored.files}
    head = {**json.loads(arrays["head"].tobytes()), "schema": 2}
    buffer = io.BytesIO()
    np.savez(buffer, **{**arrays, "head": np.frombuffer(json.dumps(head).encode(), np.uint8)})
    (versions / KEPT).write_bytes(buffer.getvalue())
    with pytest.raises(VersionError, match=r"last\.npz is of schema 2 and this fedoel reads up to 1: update"):
        last_version(versions, bytes(32))


def test_what_a_later_release_has_signed_in_a_bundle_is_verified_and_not_used(tmp_path: Path) -> None:

    folder = unpacked(LAST, tmp_path)
    text = (folder / "d1.fleet").read_text(encoding="utf-8")
    known = bundle_from_text(text)
    lines = [line for line in text.split("\n") if not line.startswith("signature")]
    at = next(number for number, line in enumerate(lines) if line.startswith("name"))
    lines.insert(at, 'colour = "blue"')

    values = {name.replace("-", "_"): value for name, value in tomllib.loads("\n".join(lines)).items()}
    key = key_from_pem((folder / "server" / "ca.key").read_bytes())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    signature = key.sign(BUNDLE.purpose + json.dumps(values, sort_keys=True).encode(), ec.ECDSA(SHA256())).hex()
    lines.insert(at, f'signature = "{signature}"')
    later = bundle_from_text("\n".join(lines))
    assert later.members == known.members and later.signature == signature
    with pytest.raises(EnrolmentError, match="was changed on its way"):
        bundle_from_text("\n".join(lines).replace("blue", "red"))
