"""A device obeys the newest notice of its fleet's owner, within the message that brings it, and nobody else's."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from flwr.app import ConfigRecord, RecordDict
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from fedoel.cli.main import main
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.notice import check_going, take_notice
from fedoel.client.device.offline import load_last_version
from fedoel.client.device.record import DeviceRecord
from fedoel.protocol.errors import ConfigError, TrustError, VersionError
from fedoel.protocol.fleet.notice import ACTION, RECORD, Notice, kept_notice
from fedoel.protocol.messages import request_to_records, with_notice
from fedoel.protocol.signing import sign_notice
from fedoel.server.fleet import owner_key
from fedoel.server.notice import publish_notice, signed_notice
from fedoel.server.operate.rotate import rotate

from .fleet_of_devices import PHASES, Devices, SecureRound

STRANGER = Ed25519PrivateKey.from_private_bytes(bytes(32))
STOPPED = "code: FleetStopped"


@pytest.fixture
def devices(joined_devices: Devices) -> Devices:
    """The same fleet, whose devices have no notice, answer everything, and whose nodes are new."""
    for number in range(joined_devices.count):
        device = joined_devices.device(number)
        device.notice.unlink(missing_ok=True)
        text = device.settings.read_text().replace('verbs = "masked"', 'verbs = "masked experience trial"')
        device.settings.write_text(text)
    joined_devices.restart(range(joined_devices.count))
    return joined_devices


def notice(number: int, stop: bool = True, reason: str = "") -> Notice:
    return Notice(number, stop, 1_800_000_000, reason)


def signed(devices: Devices, number: int, stop: bool = True) -> Notice:
    return sign_notice(owner_key(devices.server.fleet), notice(number, stop))


def ask(devices: Devices, number: int, brought: Notice | None = None) -> RecordDict:
    """Ask a device for its vector by itself."""
    records = with_notice(request_to_records(devices.request()), brought)
    return devices.send(number, "train.experience", records)


def test_a_stopped_device_refuses_every_verb_until_a_newer_notice(devices: Devices) -> None:
    assert "experience" in ask(devices, 0)
    stop = publish_notice(devices.server.fleet, True, "the version is broken")
    with pytest.raises(Exception, match=STOPPED):
        ask(devices, 0, signed_notice(devices.server.fleet))
    devices.restart([0])  # the node's memory is lost, its disk is not
    for action in ("train.experience", "evaluate.trial", *(f"query.{name}" for name in PHASES if name != "masked")):
        with pytest.raises(Exception, match=STOPPED):
            devices.send(0, action, request_to_records(devices.request()))
    assert "experience" in ask(devices, 1), "who was not told goes on"
    counts, [last, *_] = DeviceRecord(devices.device(0).record).refusals()
    assert counts["FleetStopped"] == 7 and "the version is broken" in last.sentence
    publish_notice(devices.server.fleet, False)
    assert "experience" in ask(devices, 0, signed_notice(devices.server.fleet))
    with pytest.raises(Exception, match="VersionError"):
        ask(devices, 0, sign_notice(owner_key(devices.server.fleet), stop))  # replayed
    assert "experience" in ask(devices, 0)


def test_a_stop_between_two_phases_ends_the_secure_sum(devices: Devices) -> None:
    """Each message is checked, and what a device has masked when the stop comes stays masked."""
    stopping = SecureRound(devices, devices.request(), range(5), 1, run="stop").run_to("masked")
    assert not stopping.refused
    for number in range(5):
        take_notice(devices.device(number), signed(devices, 1))
    stopping.run_to("confirm", first="confirm")
    assert set(stopping.refused.values()) == {"confirm: FleetStopped"}


def test_what_is_played_while_the_notice_comes_is_not_sent(devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    from fedoel.client import app

    def stopped_meanwhile(*arguments: object) -> RecordDict:
        take_notice(devices.device(0), signed(devices, 1))
        return RecordDict()

    monkeypatch.setattr(app, "answer", stopped_meanwhile)
    with pytest.raises(Exception, match=STOPPED):
        ask(devices, 0)


def test_the_message_that_asks_for_nothing_is_acknowledged(devices: Devices) -> None:
    for brought, number in ((None, 0), (signed(devices, 3), 3), (None, 3), (signed(devices, 5, stop=False), 5)):
        reply = devices.send(0, ACTION, with_notice(RecordDict(), brought))
        assert dict(reply.config_records[RECORD].items()) == {"number": number}
    with pytest.raises(Exception, match="VersionError"):
        devices.send(0, ACTION, with_notice(RecordDict(), signed(devices, 4)))


def test_a_notice_that_is_in_no_log_is_refused_with_the_request_behind_it(devices: Devices) -> None:
    """Whoever has the fleet's key lifts a stop for one device: others would see it in the log."""
    with pytest.raises(Exception, match="LogRefused"):
        ask(devices, 2, signed(devices, 900, stop=False))


def test_malformed_notices_stop_nobody(devices: Devices) -> None:
    good = with_notice(RecordDict(), signed(devices, 1))[RECORD]
    assert isinstance(good, ConfigRecord)
    for change in ({"number": 0}, {"stop": 1}, {"at": -1}, {"reason": "two\nlines"}, {"more": 1}, {"signature": b""}):
        records = request_to_records(devices.request())
        records[RECORD] = ConfigRecord({**good, **change})
        with pytest.raises(Exception, match="VersionError"):
            devices.send(0, "train.experience", records)
    assert kept_notice(devices.device(0).notice) is None and "experience" in ask(devices, 0)


def test_the_owner_sees_it_and_does_not_play_a_stopped_version(
    devices: Devices, capsys: pytest.CaptureFixture[str]
) -> None:
    device = devices.device(0)
    ask(devices, 0)
    assert load_last_version(device)
    stop = sign_notice(owner_key(devices.server.fleet), notice(1, reason="it deletes files"))
    take_notice(device, stop)
    with pytest.raises(TrustError, match=r"the fleet is stopped: notice 1, stop, of .* \(it deletes files\)"):
        load_last_version(device)
    main(["device", "status", str(device.path)])
    assert "notice:  THE FLEET IS STOPPED, and nothing is played or sent: notice 1" in capsys.readouterr().out
    device.notice.write_text("{")
    with pytest.raises(ConfigError, match="holds no notice"):
        check_going(device)


def test_a_stop_outlives_the_key_that_has_signed_it(tmp_path: Path) -> None:
    """Both sides: a device that follows the new key stays stopped, and is sent the same notice under the new key."""
    devices = Devices.make(tmp_path, 1)
    keys, device = devices.server.fleet, devices.device(0)
    publish_notice(keys, True)
    before = signed_notice(keys)
    take_notice(device, before)
    rotate(devices.server)
    devices.enroll(0)
    assert main(["device", "join", str(device.path), "--bundle", str(devices.bundle(0))]) == 0
    with pytest.raises(TrustError):
        check_going(device)
    with pytest.raises(VersionError, match="not signed"):
        take_notice(device, before)
    assert take_notice(device, signed_notice(keys)) == 1
    publish_notice(keys, False)
    assert take_notice(device, signed_notice(keys)) == 2
    check_going(device)


Sent = tuple[int, bool, bool]  # number, whether to stop, and whether the fleet has signed it


@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_the_newest_notice_of_the_fleet_wins_in_whatever_order_they_come(devices: Devices, sent: list[Sent]) -> None:
    device: DeviceFolder = devices.device(4)
    device.notice.unlink(missing_ok=True)
    key, newest = owner_key(devices.server.fleet), None
    for number, stop, ours in sent:
        brought = sign_notice(key if ours else STRANGER, notice(number, stop))
        taken = ours and (newest is None or number > newest.number or brought.entry == newest.entry)
        if taken:
            assert take_notice(device, brought) == number
            newest = brought
        else:
            with pytest.raises(VersionError):
                take_notice(device, brought)
        kept = kept_notice(device.notice)
        assert (kept.entry if kept else None) == (newest.entry if newest else None)
    assert not any(ours for _, _, ours in sent) or kept_notice(device.notice) is not None
