"""The fleet's log on disk: what was sent is in it, whenever the server dies, and changes of the file are found."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from fedoel.cli.main import main
from fedoel.protocol.config import PrivacyConfig, RunConfig
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.fleet.log import EMPTY, REQUEST, WINDOW, leaf_of
from fedoel.protocol.fleet.membership import read_fleet_key
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.records.journal import OPENED, Entry, read_line
from fedoel.protocol.signing import check_head, entry_of_request
from fedoel.server.fleet import make_fleet, make_owner, newest_log, owner_key, publish_members
from fedoel.server.journal import Journal
from fedoel.server.log import NAME, FleetLog, check_log
from fedoel.server.requests import signed
from fedoel.server.safeguards import RunSafeguards

KEY = Ed25519PrivateKey.from_private_bytes(bytes(32))
PUBLIC = KEY.public_key().public_bytes_raw()
ONE = bytes([1] * 32)


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    make_owner(tmp_path / "fleet", [ONE])
    return tmp_path / "fleet"


def run(keys: Path, out: Path) -> RunSafeguards:
    return RunSafeguards(RunConfig(name="run", out=str(out), privacy=PrivacyConfig(keys=str(keys))))


def request(safeguards: RunSafeguards) -> PlayRequest:
    spec = VectorSpec("tactics", 4, "vocabulary", "v1", ("coin",), 2, 5.0, 20.0)
    return signed(PlayRequest(1, 1, spec, np.zeros((1, 2), np.float32), {}), safeguards)


def kinds(keys: Path) -> list[str]:
    check = check_log(keys / NAME, read_fleet_key(keys))
    assert not check.problems
    return [logged.entry.kind for logged in check.entries]


def test_requests_lists_and_the_journals_of_all_runs_are_in_one_log(keys: Path, tmp_path: Path) -> None:
    publish_members(keys, [ONE, bytes([2] * 32)])
    for name in ("first", "second"):
        Journal(tmp_path / name, keys).add(OPENED, config="c", cycle=-1, version="")
        request(run(keys, tmp_path / name))
    assert kinds(keys) == ["members", "journal", "request", "journal", "request"]
    log = run(keys, tmp_path / "second").log
    assert log is not None
    head = check_log(keys / NAME, read_fleet_key(keys)).head
    assert log.heads[-1] == head
    check_head(read_fleet_key(keys), log.signature, head)


def test_a_signed_request_is_in_the_log_and_every_part_has_the_present_list(keys: Path, tmp_path: Path) -> None:
    """Also where the list was made by a release without a log."""
    safeguards = run(keys, tmp_path / "run")
    sent = request(safeguards)
    assert kinds(keys) == ["request"]
    log = safeguards.log
    assert log is not None and leaf_of(REQUEST, entry_of_request(sent)) in log.entries
    assert kinds(keys) == ["request", "members"]
    assert safeguards.log == log


def test_a_simulation_has_no_log(tmp_path: Path) -> None:
    safeguards = RunSafeguards(RunConfig(name="run", out=str(tmp_path)))
    make_fleet(tmp_path / "keys", 2)
    Journal(tmp_path, tmp_path / "keys").add(OPENED, config="c", cycle=-1, version="")
    assert request(safeguards).log is None and safeguards.log is None
    assert not (tmp_path / "keys" / NAME).exists()


def test_a_part_of_a_long_log_has_its_newest_entries(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fedoel.server.log.WINDOW", 3)
    whole, log = [], FleetLog(keys)
    for serial in range(7):
        log.add(owner_key(keys), REQUEST, serial=serial)
        whole.append(leaf_of(REQUEST, {"serial": serial}))
    part = log.extract(owner_key(keys))
    assert (part.start.size, part.entries, part.heads[-1].size) == (4, whole[-3:], 7)
    newest = newest_log(keys)  # the list of members is in every part, even if nobody has changed it for long
    assert newest.heads[-1].size == 8
    for serial in range(7, 10):
        log.add(owner_key(keys), REQUEST, serial=serial)
    assert newest_log(keys).heads[-1].size == 12 and WINDOW * 32 == 131_072


def test_what_a_look_costs_does_not_grow_with_the_log(keys: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read, log, key = list[bytes](), FleetLog(keys), owner_key(keys)

    def noted(line: bytes) -> Entry:
        read.append(line)
        return read_line(line)

    monkeypatch.setattr("fedoel.server.log.read_line", noted)
    for serial in range(20):
        read.clear()
        log.add(key, REQUEST, serial=serial)
        newest_log(keys, log)
        assert len(read) <= 4
    FleetLog(keys).add(key, REQUEST, serial=20)  # of another process, such as `server enroll`
    assert newest_log(keys, log) == newest_log(keys)


def test_a_log_that_was_put_back_is_read_anew(keys: Path) -> None:
    log, key = FleetLog(keys), owner_key(keys)
    log.add(key, REQUEST, serial=1)
    copy = log.path.read_bytes()
    log.add(key, REQUEST, serial=2)
    log.path.unlink()
    log.path.write_bytes(copy)
    assert newest_log(keys, log) == newest_log(keys)
    log.path.unlink()
    assert newest_log(keys, log) == newest_log(keys) and kinds(keys) == ["members"]


def test_a_line_that_a_crash_has_torn_was_not_sent_and_is_cut_off(keys: Path) -> None:
    log, key = FleetLog(keys), owner_key(keys)
    log.add(key, REQUEST, serial=1)
    log.add(key, REQUEST, serial=2)
    content = log.path.read_bytes()
    for size in range(content.index(b"\n") + 1, len(content), 61):
        log.path.write_bytes(content[:size])
        assert check_log(log.path, read_fleet_key(keys)).head.size == 1
        log.add(key, REQUEST, serial=3)
        check = check_log(log.path, read_fleet_key(keys))
        assert not check.problems and not check.torn
        assert [logged.entry.values["serial"] for logged in check.entries] == [1, 3]


@pytest.mark.parametrize("step", range(1, 4))
def test_a_server_that_dies_while_it_signs_has_sent_nothing_that_is_not_in_the_log(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    """It dies when it forces something to the disk, once before and once after the entry is there."""
    safeguards, calls, sync = run(keys, tmp_path / "run"), list[int](), os.fsync
    first = request(safeguards)
    log = safeguards.log
    assert log is not None

    def dies(descriptor: int) -> None:
        calls.append(descriptor)
        if len(calls) == step + 1:  # behind the serial number's
            raise KeyboardInterrupt
        sync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", dies)
        with pytest.raises(KeyboardInterrupt):
            request(safeguards)
    again = request(safeguards)
    newer = safeguards.log
    assert newer is not None and newer.heads[log.heads[-1].size] == log.heads[-1]
    assert {leaf_of(REQUEST, entry_of_request(one)) for one in (first, again)} <= set(newer.entries)
    assert again.serial > first.serial


def test_a_damaged_log_stops_the_server_with_a_sentence(keys: Path, tmp_path: Path) -> None:
    safeguards = run(keys, tmp_path / "run")
    for _ in range(3):
        request(safeguards)
    path = keys / NAME
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([lines[0], lines[2]]))
    with pytest.raises(FedoelError, match=r"log\.jsonl, line 2: it does not follow.*put back a copy"):
        request(safeguards)


@cache
def written() -> bytes:
    """A log of four entries."""
    with TemporaryDirectory() as folder:
        log = FleetLog(Path(folder))
        for serial in range(4):
            log.add(KEY, REQUEST, serial=serial, version="v1")
        return log.path.read_bytes()


SIZE = len(written())
ALTERATIONS: st.SearchStrategy[Callable[[bytes], bytes]] = st.one_of(
    st.builds(
        lambda at, bits: lambda content: content[:at] + bytes([content[at] ^ bits]) + content[at + 1 :],
        st.integers(0, SIZE - 1), st.integers(1, 255),
    ),
    st.builds(lambda at: lambda content: content[:at] + content[at + 1 :], st.integers(0, SIZE - 1)),
    st.builds(
        lambda at, byte: lambda content: content[:at] + byte + content[at:],
        st.integers(0, SIZE), st.binary(min_size=1, max_size=1),
    ),
    st.builds(lambda at: lambda content: content[:at], st.integers(0, SIZE - 1)),
    st.permutations(range(4)).filter(lambda order: order != [0, 1, 2, 3]).map(
        lambda order: lambda content: b"".join(content.splitlines(keepends=True)[line] for line in order)
    ),
)  # fmt: skip


@given(ALTERATIONS)
def test_any_byte_or_order_that_was_changed_is_found(alter: Callable[[bytes], bytes]) -> None:
    """By the chain and its signatures, or, where only the end was cut off, by a head that a device has."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / NAME
        path.write_bytes(written())
        known = check_log(path, PUBLIC).head
        assert not check_log(path, PUBLIC, known).problems
        path.write_bytes(alter(written()))
        check = check_log(path, PUBLIC, known)
        assert check.problems or check.torn


def test_a_line_that_the_owner_s_key_has_signed_anew_is_another_log(keys: Path) -> None:
    log, key = FleetLog(keys), owner_key(keys)
    for serial in range(3):
        log.add(key, REQUEST, serial=serial)
    known = check_log(log.path, read_fleet_key(keys)).head
    log.path.unlink()
    for serial in (0, 7, 2):
        log.add(key, REQUEST, serial=serial)
    check = check_log(log.path, read_fleet_key(keys), known)
    assert check.problems == [f"the head {known} is not in this log"]


def test_the_owner_shows_and_verifies_the_log(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    server = tmp_path / "server"
    assert main(["server", "init", str(server), "--host", "127.0.0.1", "--set", "server.public=games"]) == 0
    publish_members(server / "fleet", [ONE])
    request(run(server / "fleet", tmp_path / "run"))
    path = server / "fleet" / NAME
    first, last = (logged.head for logged in check_log(path, read_fleet_key(server / "fleet")).entries)
    capsys.readouterr()
    assert main(["server", "log", "show", str(server)]) == 0
    shown = capsys.readouterr().out
    assert "members  list=2 devices=1" in shown and "request  serial=1 cycle=1" in shown and f"head {last}" in shown
    for head in ("", str(first), str(last), str(EMPTY)):
        assert main(["server", "log", "verify", str(server), *([head] if head else [])]) == 0
        said = capsys.readouterr().out
        assert "2 entries, each signed" in said and f"head     {last}" in said
        assert (f"the log has the head {head}" in said) == bool(head)
    assert main(["server", "log", "verify", str(server), str(replace(last, size=1))]) == 1
    assert "is not in this log" in capsys.readouterr().out
    assert main(["server", "log", "verify", str(server), "12"]) == 2
    assert "is no head of a log" in capsys.readouterr().err
    main(["server", "status", str(server)])
    assert f"log: head {last}" in capsys.readouterr().out
    path.write_bytes(path.read_bytes().replace(b'"devices": 1', b'"devices": 2'))
    assert main(["server", "log", "verify", str(server)]) == 1
    assert "WRONG    log.jsonl, line 1: it is not signed" in capsys.readouterr().out
