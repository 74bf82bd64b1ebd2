"""The owner's notices on the server: numbered, in the log, signed by whichever key the fleet has, and acknowledged."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.errors import VersionError
from fedoel.protocol.fleet.log import NOTICE, REQUEST, leaf_of
from fedoel.protocol.fleet.membership import read_fleet_key
from fedoel.protocol.fleet.notice import Notice
from fedoel.protocol.signing import check_notice, sign_notice
from fedoel.server import log as log_module
from fedoel.server.fleet import make_owner, newest_log, owner_key
from fedoel.server.log import NAME, FleetLog, check_log
from fedoel.server.notice import acknowledge, acknowledged, newest_notice, publish_notice, signed_notice


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_owner(tmp_path / "fleet")
    return tmp_path / "fleet"


def test_a_notice_is_numbered_signed_and_in_the_log(keys: Path) -> None:
    assert newest_notice(keys) is None and signed_notice(keys) is None
    for number, stop in ((1, True), (2, False), (3, True)):
        published = publish_notice(keys, stop, "why" * stop)
        assert (published.number, published.stop, published.reason) == (number, stop, "why" * stop)
        assert newest_notice(keys) == published
        signed = signed_notice(keys)
        assert signed is not None
        check_notice(read_fleet_key(keys), signed)
        with pytest.raises(VersionError, match="a notice is not signed"):
            check_notice(read_fleet_key(keys), sign_notice(Ed25519PrivateKey.generate(), signed))
    check = check_log(keys / NAME, read_fleet_key(keys))
    assert not check.problems and [logged.entry.kind for logged in check.entries] == [NOTICE] * 3


def test_what_is_sent_of_the_log_has_the_newest_notice_however_old_it_is(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(log_module, "WINDOW", 4)
    publish_notice(keys, True)
    newest = leaf_of(NOTICE, publish_notice(keys, False).entry)
    for serial in range(9):
        FleetLog(keys).add(owner_key(keys), REQUEST, serial=serial)
        sent = newest_log(keys).entries
        assert len(sent) <= 4 and newest in sent
    assert newest_notice(keys) == Notice.of_entry(FleetLog(keys).of_kind(NOTICE)[-1].values)


@pytest.mark.parametrize("reason", ["two\nlines", "x" * 501, "\x1b[2J"])
def test_a_reason_that_could_disturb_a_terminal_is_refused_before_anything_is_signed(keys: Path, reason: str) -> None:
    with pytest.raises(VersionError, match="one line of at most 500"):
        publish_notice(keys, True, reason)
    assert newest_notice(keys) is None


def test_acknowledgements_add_up_over_processes_and_are_those_of_one_notice(keys: Path) -> None:
    acknowledge(keys, 1, {7, 8})
    acknowledge(keys, 1, {8, 9})
    assert (acknowledged(keys, 1), acknowledged(keys, 2)) == (3, 0)
    acknowledge(keys, 2, {7})
    assert (acknowledged(keys, 1), acknowledged(keys, 2)) == (0, 1)
    (keys / "acknowledged.json").write_text("[")
    assert acknowledged(keys, 2) == 0
