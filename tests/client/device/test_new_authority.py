"""A device takes its fleet's next certificate authority from a bundle, and never goes back to the one before."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import REFUSED, main
from fedoel.client.device import doctor
from fedoel.client.device.doctor import Server
from fedoel.client.device.folder import joined as bundle_of
from fedoel.client.device.join import take_bundle
from fedoel.protocol.errors import EnrolmentError
from fedoel.protocol.host.lock import one_owner
from fedoel.server.operate.authority import begin, finish
from fedoel.server.operate.folder import ServerFolder
from fedoel.server.operate.setup import enroll

from .conftest import Joined


def bundle_again(joined: Joined, path: Path) -> Path:
    enroll(ServerFolder(joined.server), joined.device.path / "one.pub", out=path)
    return path


def test_a_bundle_from_before_the_authority_that_a_device_has_taken_is_refused(joined: Joined, tmp_path: Path) -> None:
    server, before = ServerFolder(joined.server), tmp_path / "one.fleet"
    begin(server)
    both = bundle_again(joined, tmp_path / "both.fleet")
    take_bundle(joined.device, both)
    with pytest.raises(EnrolmentError, match="older than the fleet's authority that this device has taken"):
        take_bundle(joined.device, before)
    take_bundle(joined.device, both)
    finish(server)
    take_bundle(joined.device, bundle_again(joined, tmp_path / "after.fleet"))
    for old in (before, both):
        with pytest.raises(EnrolmentError, match="another authority"):
            take_bundle(joined.device, old)


def test_a_given_authority_does_not_take_the_next_one_away(joined: Joined, tmp_path: Path) -> None:
    given = tmp_path / "ca.crt"
    given.write_bytes(joined.device.authority.read_bytes())
    begin(ServerFolder(joined.server))
    path = bundle_again(joined, tmp_path / "both.fleet")
    words = ["device", "join", str(joined.device.path), "--bundle", str(path), "--ca", str(given)]
    assert main(words) == 0
    assert joined.device.authority.read_bytes() == (joined.server / "ca.crt").read_bytes()


def test_who_joins_again_while_the_device_runs_is_told_to_restart_it(
    joined: Joined, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    begin(ServerFolder(joined.server))
    words = ["device", "join", str(joined.device.path), "--bundle", str(bundle_again(joined, tmp_path / "both.fleet"))]
    with one_owner(joined.device.process, ""):
        assert main(words) == 0
        assert "restart the device's service" in capsys.readouterr().out
        assert main(words) == 0
        assert "restart" not in capsys.readouterr().out


@pytest.mark.parametrize("step", range(1, 6))
def test_joining_that_was_interrupted_leaves_a_device_that_has_joined(
    joined: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    server, replace = ServerFolder(joined.server), os.replace

    def dying(path: Path) -> None:
        left = [step]

        def dies(*arguments: Any, **named: Any) -> None:
            left[0] -= 1
            if not left[0]:
                raise KeyboardInterrupt
            replace(*arguments, **named)

        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dies)
            try:
                take_bundle(joined.device, path)
            except KeyboardInterrupt:
                assert bundle_of(joined.device).name == "one"
        take_bundle(joined.device, path)
        assert joined.device.authority.read_bytes() == server.ca_certificate.read_bytes()

    begin(server)
    dying(bundle_again(joined, tmp_path / "both.fleet"))
    finish(server)
    dying(bundle_again(joined, tmp_path / "after.fleet"))


def test_another_fleet_s_authority_brings_no_other_fleet(joined: Joined, tmp_path: Path) -> None:
    """`--ca` is what an owner may say; the fleet's key stays."""
    other = tmp_path / "other"
    assert main(["server", "init", str(other), "--host", "127.0.0.1", "--set", "server.public=games"]) == 0
    path = tmp_path / "other.fleet"
    enroll(ServerFolder(other), joined.device.path / "one.pub", out=path)
    before = joined.device.authority.read_bytes()
    words = ["device", "join", str(joined.device.path), "--bundle", str(path), "--ca", str(other / "ca.crt")]
    assert main(words) == REFUSED and joined.device.authority.read_bytes() == before


def test_the_doctor_says_soon_before_a_certificate_ends(
    joined: Joined, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def said(days: float) -> str:
        monkeypatch.setattr(doctor, "probe", lambda host, port, authority: Server(0.0, time.time() + 86_400 * days))
        monkeypatch.setattr(doctor, "free_memory", lambda: 9999.0)
        main(["device", "doctor", str(joined.device.path)])
        return capsys.readouterr().out

    assert "[soon]" not in said(300)
    near = said(12.5)
    assert "[soon] reach 127.0.0.1:9, with" in near and "valid for 12 days: whoever runs the server" in near
    assert "this device is ready" in near
    monkeypatch.setattr(doctor, "AUTHORITY_SOON", 3651)
    assert "[soon] the fleet's authority: its certificate is valid for 3649 days: ask whoever runs" in said(300)
