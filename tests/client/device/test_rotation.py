"""A fleet's new key: devices follow it from the old one, which has signed it, and from no other."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedoel.cli.main import REFUSED, main
from fedoel.client.device.folder import membership_of
from fedoel.client.device.join import take_bundle
from fedoel.client.device.last_version import LAST, keep
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import EnrolmentError, VersionError
from fedoel.protocol.fleet.enrolment import bundle_from_text, sign_bundle, to_text
from fedoel.protocol.fleet.log import read_witness
from fedoel.protocol.fleet.membership import FLEET_KEY, load_members, read_fleet_key
from fedoel.protocol.fleet.succession import Succession, leads_to
from fedoel.protocol.host.lock import one_owner
from fedoel.server.fleet import OWNER_KEY
from fedoel.server.log import NAME, check_log
from fedoel.server.operate.certificates import key_from_pem
from fedoel.server.operate.folder import ServerFolder
from fedoel.server.operate.rotate import NEXT, rotate
from fedoel.server.operate.setup import enroll
from fedoel.server.run_folder import STORED
from fedoel.simulations.grid import server_identity

from ...interruption import interrupt
from .conftest import Joined

CONFIG = RunConfig()


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def bundle_again(joined: Joined, tmp_path: Path) -> Path:
    path = tmp_path / "one.fleet"
    enroll(ServerFolder(joined.server), joined.device.path / "one.pub", out=path)
    return path


def accept(joined: Joined, serial: int) -> None:
    membership_of(joined.device).accept(joined.request(serial=serial, config=CONFIG), CONFIG)


def intact(keys: Path) -> bool:
    check = check_log(keys / NAME, read_fleet_key(keys))
    return not check.problems and load_members(keys)[1] == read_fleet_key(keys)


def test_a_device_follows_its_fleet_through_two_new_keys_and_keeps_the_log(joined: Joined, tmp_path: Path) -> None:
    server, keys = ServerFolder(joined.server), joined.server / "fleet"
    accept(joined, 1)
    seen, first = read_witness(joined.device.log_head).head, read_fleet_key(keys)
    keep(joined.device.versions, joined.request(config=CONFIG), CONFIG)
    for _ in range(2):
        assert rotate(server) == 0
    assert read_fleet_key(keys) != first and not (keys / NEXT).exists() and intact(keys)
    assert (keys / OWNER_KEY).stat().st_mode & 0o77 == 0
    with pytest.raises(VersionError, match="not signed by this fleet's key"):
        accept(joined, 2)
    take_bundle(joined.device, bundle_again(joined, tmp_path))
    assert not (joined.device.versions / LAST).exists(), "the key before has signed it"
    accept(joined, 2)
    check = check_log(keys / NAME, read_fleet_key(keys), seen)
    assert not check.problems and check.head == read_witness(joined.device.log_head).head
    assert [logged.entry.kind for logged in check.entries].count("key") == 2


def test_a_key_that_the_old_one_has_not_signed_is_refused(joined: Joined, tmp_path: Path) -> None:
    """Also in a bundle that the fleet's own authority has signed."""
    server, before = ServerFolder(joined.server), (joined.device.fleet / FLEET_KEY).read_bytes()
    rotate(server)
    bundle = bundle_again(joined, tmp_path)
    told, key = bundle_from_text(bundle.read_text()), key_from_pem(server.ca_key.read_bytes())
    stranger = Ed25519PrivateKey.generate()
    after = bytes.fromhex(told.fleet_key)
    forged = replace(Succession.signed(stranger, after), before=bytes.fromhex(before.decode()))
    for succession in ("", str(Succession.signed(stranger, after)), str(forged)):
        bundle.write_text(to_text(sign_bundle(key, replace(told, succession=succession))))
        with pytest.raises(EnrolmentError, match="of a fleet with another key"):
            take_bundle(joined.device, bundle)
        assert (joined.device.fleet / FLEET_KEY).read_bytes() == before
    bundle.write_text(to_text(sign_bundle(key, replace(told, succession="nonsense"))))
    with pytest.raises(EnrolmentError, match="malformed"):
        take_bundle(joined.device, bundle)


@pytest.mark.parametrize("step", range(1, 16))
def test_a_rotation_that_was_interrupted_is_finished_by_the_same_command(
    joined: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    server, keys = ServerFolder(joined.server), joined.server / "fleet"
    accept(joined, 1)
    before = read_fleet_key(keys)

    with monkeypatch.context() as patch:
        interrupt(patch, step, ("fsync", "replace"))
        with pytest.raises(KeyboardInterrupt):
            rotate(server)
    assert rotate(server) == 0
    assert intact(keys) and read_fleet_key(keys) != before and not (keys / NEXT).exists()
    assert len([line for line in (keys / NAME).read_bytes().splitlines() if b'"kind": "key"' in line]) == 1
    take_bundle(joined.device, bundle_again(joined, tmp_path))
    accept(joined, 2)


def test_a_fleet_s_key_stays_while_a_run_depends_on_it(joined: Joined, capsys: pytest.CaptureFixture[str]) -> None:
    server = ServerFolder(joined.server)
    with one_owner(server.lock, ""):
        assert main(["server", "rotate", str(server.path)]) == REFUSED
    assert "stop it first" in capsys.readouterr().err
    server.run.mkdir()
    (server.run / STORED).write_text("{}")
    assert main(["server", "rotate", str(server.path)]) == REFUSED
    assert "move it away first" in capsys.readouterr().err
    (server.run / STORED).unlink()
    assert main(["server", "rotate", str(server.path)]) == 0
    assert "refuse the new key until they have joined again" in capsys.readouterr().out


KEYS = [Ed25519PrivateKey.from_private_bytes(bytes([number] * 32)) for number in range(4)]
PUBLIC = [key.public_key().public_bytes_raw() for key in KEYS]


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), max_size=5), st.integers(0, 3), st.integers(0, 3))
def test_steps_lead_where_each_begins_where_the_one_before_has_ended(
    steps: list[tuple[int, int]], known: int, wanted: int
) -> None:
    text, at = " ".join(str(Succession.signed(KEYS[a], PUBLIC[b])) for a, b in steps), known
    for before, after in steps:
        at = after if before == at else at
    assert leads_to(text, PUBLIC[known].hex(), PUBLIC[wanted].hex()) == (at == wanted)
