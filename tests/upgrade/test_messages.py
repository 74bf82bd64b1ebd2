"""Messages of the release before: answered and taken by today's code, or refused by a name that says why."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.serde import recorddict_from_proto
from flwr.proto.recorddict_pb2 import RecordDict as Sent

from fedoel.client.app import make_app
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.record import DeviceRecord
from fedoel.client.runtime import SimulatedRuntime
from fedoel.protocol.config import DIGITS, RunConfig, settings_digest
from fedoel.protocol.errors import FedoelError, VectorError
from fedoel.protocol.fleet.log import REQUEST as REQUESTED
from fedoel.protocol.messages import (
    ACTION,
    RELEASE_RECORD,
    PlayRequest,
    copy_of,
    release_of_reply,
    request_from_records,
    request_to_records,
    vector_from_reply,
)
from fedoel.protocol.release import CODE, RELEASE, Release
from fedoel.protocol.settings import settings_of
from fedoel.protocol.signing import entry_of_request, sign_request
from fedoel.server.fleet import newest_log, owner_key
from fedoel.server.log import FleetLog
from fedoel.simulations.grid import server_identity
from fedoel.strategies.replies import OTHER_RELEASE, sort_replies

from .conftest import DAY_BEFORE, LAST, unpacked


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def recorded(folder: Path, name: str) -> RecordDict:
    """Return a message's content as it was recorded."""
    return recorddict_from_proto(Sent.FromString((folder / "messages" / name).read_bytes()))


def settings(folder: Path) -> dict[str, Any]:
    """Return the run's settings as the devices got them."""
    return dict(json.loads((folder / "messages" / "settings.json").read_bytes()))


def asked(folder: Path, content: RecordDict, group: str = "", **more: Any) -> Message:
    """Let the device that has answered nothing yet answer a message."""
    home = folder / "before"
    node = {
        "home": str(home), "partition-id": 0, "num-partitions": 1, "store": str(home / "store.sqlite"),
        "store-key": str(home / "keys" / "store.key"),
    }  # fmt: skip
    context = Context(1, 1, node, RecordDict(), {**settings(folder), **more})  # type: ignore[arg-type]
    message = Message(content, dst_node_id=1, message_type=ACTION, group_id=group)
    return make_app(SimulatedRuntime())(message, context)


def refusal(folder: Path) -> str:
    """Return the device's last refusal, as its owner reads it."""
    _, (last, *_) = DeviceRecord(DeviceFolder(folder / "before").record).refusals()
    return f"{last.code}: {last.sentence}"


def test_a_device_answers_a_server_of_the_release_before_as_that_device_did(tmp_path: Path) -> None:
    folder = unpacked(LAST, tmp_path)
    reply, then = asked(folder, recorded(folder, "request.bin")).content, recorded(folder, "reply.bin")
    assert set(reply) == {"experience"}, "that server refuses records that it does not know"
    spec = request_from_records(recorded(folder, "request.bin")).spec
    values, expected = (vector_from_reply(copy_of(one), spec).to_array() for one in (reply, then))
    assert values.any() and values == pytest.approx(expected)


def test_a_server_from_before_the_log_is_refused_by_name(tmp_path: Path) -> None:
    folder = unpacked(DAY_BEFORE, tmp_path)
    with pytest.raises(FedoelError, match=rf"^code: {CODE}$"):
        asked(folder, recorded(folder, "request.bin"))
    assert "whoever runs the server has to upgrade it" in refusal(folder)


def test_a_server_takes_the_answer_of_the_release_before(tmp_path: Path) -> None:
    folder = unpacked(LAST, tmp_path)
    request = Message(recorded(folder, "request.bin"), dst_node_id=1, message_type=ACTION, group_id=RELEASE.sent)
    request.metadata.__dict__["_message_id"] = "one"
    reply, spec = Message(recorded(folder, "reply.bin"), reply_to=request), request_from_records(request.content).spec
    arrived = sort_replies([reply], {"one": 1}, spec, games=3)
    assert len(arrived.contributions) == 1 and not arrived.refused


def test_devices_of_the_release_before_know_all_that_they_are_sent(tmp_path: Path) -> None:
    """They refuse settings, records and fields that they do not know; a device of today is told the release, too."""
    folder = unpacked(LAST, tmp_path)
    known, config = settings(folder), RunConfig()
    assert set(config.to_devices()) <= set(known)
    lacking = set(config.to_flat()) - set(known)
    assert lacking == {name for name, one in settings_of(RunConfig).items() if one.since > Release(0, 1)}
    then = recorded(folder, "request.bin")
    now = request_to_records(request_from_records(then))
    assert now == then


def signed(folder: Path, request: PlayRequest) -> PlayRequest:
    """Return a request as the fleet's server sends it."""
    keys = folder / "server" / "fleet"
    request = sign_request(owner_key(keys), request)
    FleetLog(keys).add(owner_key(keys), REQUESTED, **entry_of_request(request))
    return replace(request, log=newest_log(keys))


def of_the_release_after(folder: Path) -> tuple[RecordDict, dict[str, Any]]:
    """Return a request with a field, in a run with a setting, that only the next release knows; both are signed."""
    request = request_from_records(recorded(folder, "request.bin"))
    more = {"games.colour": "blue"}
    config = settings_digest({**settings(folder), **more})[:DIGITS]
    request = replace(request, config=config, more=json.dumps([["tempo", "bytes", "03"]]))
    content = request_to_records(signed(folder, request))
    content.config_records["request"]["tempo"] = b"\3"
    return content, more


def test_a_device_answers_a_server_of_the_release_after(tmp_path: Path) -> None:
    folder, after = unpacked(LAST, tmp_path), Release(RELEASE.major, RELEASE.minor + 1).sent
    content, more = of_the_release_after(folder)
    reply = asked(folder, content, after, **more)
    assert release_of_reply(reply.content) == RELEASE.sent and set(reply.content) == {"experience"}


@pytest.mark.parametrize("changed", ["field", "setting"])
def test_what_a_device_does_not_know_is_signed_as_it_was_received(tmp_path: Path, changed: str) -> None:
    folder, after = unpacked(LAST, tmp_path), Release(RELEASE.major, RELEASE.minor + 1).sent
    content, more = of_the_release_after(folder)
    if changed == "field":
        content.config_records["request"]["tempo"] = b"\4"
    else:
        more["games.colour"] = "red"
    with pytest.raises(FedoelError, match=r"^code: VersionError$"):
        asked(folder, content, after, **more)


@pytest.mark.parametrize("release", [Release(0, RELEASE.minor + 2), Release(1, RELEASE.minor), Release(1, 0)])
def test_a_server_that_is_too_far_ahead_is_refused_before_anything_is_read(tmp_path: Path, release: Release) -> None:
    folder = unpacked(LAST, tmp_path)
    with pytest.raises(FedoelError, match=rf"^code: {CODE}$"):
        asked(folder, RecordDict(), release.sent)
    assert f"the server is of release {release} and this device of {RELEASE}" in refusal(folder)


def test_a_device_that_is_too_far_ahead_is_counted_by_name(tmp_path: Path) -> None:
    folder = unpacked(LAST, tmp_path)
    request = Message(recorded(folder, "request.bin"), dst_node_id=1, message_type=ACTION, group_id=RELEASE.sent)
    request.metadata.__dict__["_message_id"] = "one"
    spec, content = request_from_records(request.content).spec, recorded(folder, "reply.bin")
    content[RELEASE_RECORD] = ConfigRecord({RELEASE_RECORD: Release(0, RELEASE.minor + 2).sent})
    arrived = sort_replies([Message(content, reply_to=request)], {"one": 1}, spec, games=3)
    assert not arrived.contributions and arrived.refused == {OTHER_RELEASE: 1}


def test_a_specification_that_is_written_in_another_way_is_refused(tmp_path: Path) -> None:
    content = recorded(unpacked(LAST, tmp_path), "request.bin")
    fields = content.config_records["request"]
    fields["spec"] = json.dumps(json.loads(str(fields["spec"])), indent=1)
    with pytest.raises(VectorError, match="not written as this release writes it"):
        request_from_records(content)
