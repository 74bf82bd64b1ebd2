"""A deployed device and its fleet's log: it is not moved from one log to another, whoever has the fleet's key."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.cli.main import main
from fedoel.client.device.folder import DeviceFolder, membership_of
from fedoel.client.device.join import take_bundle
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import FedoelError, TrustError, VersionError
from fedoel.protocol.fleet.enrolment import bundle_from_text, sign_bundle, to_text
from fedoel.protocol.fleet.log import REQUEST, Head, Witness, read_witness
from fedoel.protocol.fleet.membership import MEMBERS, load_members, read_fleet_key, sign_members
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.signing import sign_head
from fedoel.server.fleet import SERIAL, newest_log, owner_key, publish_members
from fedoel.server.log import NAME, FleetLog, check_log
from fedoel.server.operate.certificates import key_from_pem
from fedoel.server.operate.folder import ServerFolder
from fedoel.simulations.grid import server_identity

from .conftest import Joined
from .fleet_of_devices import Devices, SecureRound

CONFIG = RunConfig()
Fresh = Callable[[str], tuple[DeviceFolder, Path]]


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def accept(joined: Joined, request: PlayRequest) -> Witness:
    """Let the device check a request, and return what it keeps of the log."""
    membership_of(joined.device).accept(request, CONFIG)
    return read_witness(joined.device.log_head)


def request(joined: Joined, serial: int) -> PlayRequest:
    return joined.request(serial=serial, config=CONFIG)


def head(joined: Joined) -> Head:
    keys = joined.server / "fleet"
    return check_log(keys / NAME, read_fleet_key(keys)).head


def test_a_device_begins_with_the_head_in_its_bundle_and_follows_the_log(joined: Joined) -> None:
    first = read_witness(joined.device.log_head)
    assert first == Witness(head(joined)) and first.head is not None and first.head.size == 1
    for serial in (1, 2):
        asked = request(joined, serial)
        assert accept(joined, asked).head == head(joined)
    assert accept(joined, asked).head == head(joined), "it may be asked again"


def test_a_device_is_not_moved_to_another_log(joined: Joined, tmp_path: Path) -> None:
    """The server copies its log, and goes on with two of them: one for this device, and one for all others."""
    keys, other = joined.server / "fleet", tmp_path / "other" / "fleet"
    accept(joined, request(joined, 1))
    shutil.copytree(keys, other)
    elsewhere = Joined(joined.device, other.parent)
    before = accept(joined, request(joined, 2))
    request(elsewhere, 3)
    with pytest.raises(TrustError, match=r"it does not have the head 3:.*compare this device's head"):
        accept(elsewhere, request(elsewhere, 4))
    assert read_witness(joined.device.log_head) == before
    accept(joined, request(joined, 3))  # of the serial number that was refused, too
    with pytest.raises(TrustError, match="has 2 entries, and had 4"):
        (other / NAME).unlink()
        accept(elsewhere, replace(request(elsewhere, 9), log=newest_log(other)))


def test_a_request_without_a_log_in_no_log_or_with_a_forged_head_is_refused(joined: Joined) -> None:
    asked = request(joined, 1)
    assert asked.log is not None
    with pytest.raises(TrustError, match=r"of an earlier release.*upgrade it") as refused:
        accept(joined, replace(asked, log=None))
    assert refused.value.code == "LogRefused"
    with pytest.raises(VersionError, match="head of the fleet's log is not signed"):
        accept(joined, replace(asked, log=replace(asked.log, leaves=asked.log.leaves[:-32])))
    key, [*heads, _] = owner_key(joined.server / "fleet"), asked.log.heads
    unlisted = replace(asked.log, leaves=asked.log.leaves[:-32], signature=sign_head(key, heads[-1]))
    with pytest.raises(TrustError, match="the request is not in the log"):
        accept(joined, replace(asked, log=unlisted))


def test_a_list_of_members_that_is_shown_to_one_device_only_is_refused(joined: Joined) -> None:
    """Whoever has the fleet's key signs it; others would see it in the log."""
    keys, device = joined.server / "fleet", joined.device
    accept(joined, request(joined, 1))
    members, _ = load_members(keys)
    made_up = sign_members(owner_key(keys), members.number + 1, [*members.identities, bytes(32)])
    membership_of(device).renewed(made_up)  # as a secure sum brings it
    with pytest.raises(TrustError, match="list of members that this device was sent is not in the log"):
        accept(joined, request(joined, 2))
    publish_members(keys, [*members.identities, bytes(32)])
    assert (keys / MEMBERS).read_text() == (device.fleet / MEMBERS).read_text()
    accept(joined, request(joined, 3))  # what is in the log is taken, whether it was there in time or not


def test_a_device_of_an_earlier_release_takes_the_first_log_that_it_sees(joined: Joined, tmp_path: Path) -> None:
    device, bundle = joined.device, tmp_path / "old.fleet"
    key = key_from_pem(ServerFolder(joined.server).ca_key.read_bytes())
    told = bundle_from_text((tmp_path / "one.fleet").read_text())
    bundle.write_text(to_text(sign_bundle(key, replace(told, log=""))))
    assert "\nlog = " not in bundle.read_text()
    device.log_head.unlink()
    take_bundle(device, bundle)
    assert read_witness(device.log_head) == Witness()
    (joined.server / "fleet" / NAME).unlink()  # of a server that was of an earlier release, too
    publish_members(joined.server / "fleet", [*load_members(joined.server / "fleet")[0].identities, bytes(32)])
    kept = accept(joined, request(joined, 1))
    assert kept.head == head(joined) and kept.members


def test_a_bundle_does_not_replace_the_head_that_a_device_has(joined: Joined, tmp_path: Path) -> None:
    accept(joined, request(joined, 1))
    before = read_witness(joined.device.log_head)
    take_bundle(joined.device, tmp_path / "one.fleet")
    assert read_witness(joined.device.log_head) == before
    with pytest.raises(FedoelError, match="is no head of a log"):
        replace(bundle_from_text((tmp_path / "one.fleet").read_text()), log="12")


def test_the_owner_sees_the_head_and_a_wiped_device_forgets_it(
    joined: Joined, capsys: pytest.CaptureFixture[str]
) -> None:
    device = str(joined.device.path)
    main(["device", "status", device])
    assert f"log:     1 entry, head {head(joined)}" in capsys.readouterr().out
    accept(joined, request(joined, 1))
    main(["device", "status", device])
    said = capsys.readouterr().out
    assert f"log:     2 entries, head {head(joined)}" in said
    assert main(["server", "log", "verify", str(joined.server), str(head(joined))]) == 0
    joined.device.log_head.unlink()
    main(["device", "status", device])
    assert "log:     none seen yet" in capsys.readouterr().out
    accept(joined, request(joined, 2))
    assert main(["device", "wipe", device, "--yes"]) == 0
    assert not joined.device.log_head.exists()


def test_in_a_secure_sum_nothing_leaves_a_device_that_is_shown_another_log(tmp_path: Path) -> None:
    devices = Devices.make(tmp_path)
    assert not SecureRound(devices, devices.request(), range(5), 1).run_to().refused
    keys = devices.server.fleet
    honest = (keys / NAME).read_bytes()
    asked = devices.request(cycle=2)
    (keys / NAME).write_bytes(honest)
    FleetLog(keys).add(owner_key(keys), REQUEST, serial=0)  # what the others are shown in place of the request
    round_of_two_logs = SecureRound(devices, asked, range(5), 2)
    round_of_two_logs.run_to("shares")
    round_of_two_logs.request = replace(asked, log=newest_log(keys))
    assert set(round_of_two_logs.run_to("masked", "masked").refused.values()) == {"masked: LogRefused"}
    assert not round_of_two_logs.server.masked
    assert int((keys / SERIAL).read_text()) == asked.serial
