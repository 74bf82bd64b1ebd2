"""What a deployed device does when a version is clearly worse for it: its owner plays the version before."""

from __future__ import annotations

import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.app import Context, Message, RecordDict
from flwr.app.user_config import UserConfig

from fedoel.cli.main import main
from fedoel.client.app import make_app
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.last_version import BEFORE, LAST, keep, version_at
from fedoel.client.device.runtime import DeviceRuntime
from fedoel.client.device.success import fallen_back, read_success, write_success
from fedoel.client.fallback import Results, Success
from fedoel.client.runtime import SimulatedRuntime
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig
from fedoel.protocol.messages import request_to_records
from fedoel.simulations.grid import server_identity

from .conftest import Joined

CONFIG = RunConfig(
    games=GamesConfig(families="frozen-lake size=3 turns=4", per_client=3), policy=PolicyConfig(backend="tactics")
)
WORSE = Success((Results("v1", 1, 200, 400.0), Results("v2", 2, 200, 0.0)))


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@pytest.fixture
def joined(joined: Joined) -> Joined:
    """A device that answers everything, so that what it sends can be read."""
    joined.device.settings.write_text("")
    return joined


@pytest.fixture
def device(joined: Joined) -> DeviceFolder:
    """A device with two versions."""
    for serial, version in enumerate(("v1", "v2"), start=1):
        keep(joined.device.versions, joined.request(version, serial), CONFIG)
    return joined.device


def versions(device: DeviceFolder) -> list[str]:
    return [version_at(device.versions / name) for name in (BEFORE, LAST)]


def test_results_are_readable_by_their_owner_only_and_start_anew_if_they_are_damaged(tmp_path: Path) -> None:
    path = tmp_path / "success.json"
    assert read_success(path) == Success()
    write_success(path, WORSE)
    assert read_success(path) == WORSE and stat.S_IMODE(path.stat().st_mode) == 0o600
    for damaged in (b"", b"[1]", b"\xff", path.read_bytes()[:-3], b'{"version": ["v1"]}'):
        path.write_bytes(damaged)
        assert read_success(path) == Success()
    write_success(path / "below-a-file", WORSE)  # the device plays on


def test_what_was_played_is_counted_across_restarts_of_the_node_and_wiped(joined: Joined) -> None:
    path = joined.device.success
    for serial, version in enumerate(("v1", "v1", "v2"), 1):  # all of one cycle
        request = joined.request(version, serial, CONFIG)
        node: UserConfig = {"home": str(joined.device.path), "partition-id": 0, "num-partitions": 1}
        message = Message(request_to_records(request), dst_node_id=2, message_type="train.experience")
        make_app(SimulatedRuntime())(message, Context(1, 1, node, RecordDict(), dict(CONFIG.to_flat())))
    assert [(one.version, one.games) for one in read_success(path).versions] == [("v1", 3), ("v2", 3)]
    assert main(["device", "wipe", str(joined.device.path), "--yes"]) == 0
    assert not path.exists()


def test_the_owner_plays_the_version_before_and_is_told(
    device: DeviceFolder, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["play", "--device", str(device.path)]
    assert main(words) == 0
    out = capsys.readouterr().out
    assert "played by v2" in out and "worse" not in out
    write_success(device.success, WORSE)
    assert main(words) == 0
    out = capsys.readouterr().out
    assert out.startswith("version v2 is clearly worse on this device than the one before, which plays\n")
    assert "played by v1" in out
    main(["device", "status", str(device.path)])
    assert "version: v1, of cycle 1, since v2 is clearly worse here" in capsys.readouterr().out


@pytest.mark.parametrize(
    "success",
    [
        Success((Results("v1", 1, 200, 400.0), Results("v2", 2, 200, 390.0))),
        Success((Results("v0", 1, 200, 400.0), Results("v2", 2, 200, 0.0))),  # what it kept was not compared
        Success((Results("v1", 1, 200, 400.0), Results("v3", 2, 200, 0.0))),
    ],
)
def test_it_plays_the_last_version_unless_that_is_worse_than_the_one_that_it_keeps(
    device: DeviceFolder, success: Success
) -> None:
    write_success(device.success, success)
    assert not fallen_back(device)


def test_a_new_version_replaces_the_one_that_was_worse_and_not_the_one_before(
    joined: Joined, device: DeviceFolder
) -> None:
    runtime = DeviceRuntime(device.path)
    write_success(device.success, WORSE)
    runtime.policy(CONFIG, joined.request("v3", 3))
    assert versions(device) == ["v1", "v3"] and not fallen_back(device)
    write_success(device.success, WORSE.plus("v3", 3, [2.0] * 3))
    runtime.policy(CONFIG, joined.request("v4", 4))
    assert versions(device) == ["v3", "v4"]
