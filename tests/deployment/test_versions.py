"""An operator's choices reach the devices of a fleet that is under way, and a stranger's reaches nobody."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from flwr.proto.runtime_pb2 import AcquireTaskRequest
from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor
from flwr.supercore.runtime import RuntimeHttpClient
from httpx import HTTPStatusError

from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.last_version import LAST, version_at
from fedoel.protocol.records.journal import TAKEN, Entry
from fedoel.server.cycle.phases import cycle_folder, load_phase
from fedoel.server.operate.flower import CONNECTION, SECRET, Fleet
from fedoel.server.operate.folder import ServerFolder, read_settings
from fedoel.server.operate.run_app import STARTED
from fedoel.server.run_location import locate
from fedoel.simulations.loopback import LoopbackFleet

from .conftest import loopback_fleet, records, tended, tidy_run
from .hostile_proxy import hostile_fab, hostile_proxy

DEVICES = ("one", "two", "three")
LISTENS = re.compile(r"Uvicorn running on http://(127\.0\.0\.1:\d+)")
# More cycles than the fleet gets to, also on a machine so busy that a command takes several of them.
RUN = f"{tidy_run(len(DEVICES), cycles=24)}approve = true\n"  # the last table is the server's


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    with loopback_fleet(tmp_path, DEVICES, RUN) as made:
        yield made


def strangers_run_nothing(fleet: LoopbackFleet) -> None:
    """Who reaches the server, and knows no more than the fleet's public certificate, starts no app."""
    folder = ServerFolder(fleet.server)
    environment = Fleet(folder, read_settings(folder)).environment
    del environment[SECRET]
    for words in (["run", str(fleet.server / "flower" / "app"), CONNECTION], ["ls", CONNECTION]):
        done = subprocess.run(["flwr", *words], env=environment, capture_output=True, text=True, check=False)
        assert done.returncode and "Authentication failed" in done.stdout + done.stderr
        assert not STARTED.search(done.stdout + done.stderr)


def strangers_take_no_task(fleet: LoopbackFleet) -> None:
    """Other users of the machine of a device, and of the server's, are given no task of theirs."""
    fleet.wait(lambda: LISTENS.search(fleet.log("one")), 60)
    [device], folder = LISTENS.findall(fleet.log("one")), ServerFolder(fleet.server)
    authority = folder.ca_certificate.read_bytes()
    for address, certificates in ((read_settings(folder).listen, authority), (device, None)):
        version = RuntimeVersionHttpInterceptor(component_name="SuperExec")
        client = RuntimeHttpClient.from_server_address(
            server_address=address, insecure=certificates is None, root_certificates=certificates,
            interceptors=[version],
        )  # fmt: skip
        with pytest.raises(HTTPStatusError, match="401"):
            client.AcquireTask(AcquireTaskRequest(supported_task_types=["flwr-clientapp", "flwr-serverapp"]))


@pytest.mark.slow
def test_a_running_server_sends_what_an_operator_has_chosen(fleet: LoopbackFleet) -> None:
    """Between server and devices is a proxy that gives devices an app of its own: it changes nothing."""
    proof = fleet.folder / "hostile code ran"
    fleet.start("server")
    fleet.wait(lambda: "3 devices may connect" in fleet.said("server"), 120)
    fab = hostile_fab(fleet.server / "flower" / "app", proof)
    with hostile_proxy(fleet.server, ("127.0.0.1", fleet.port), fab) as (port, proxy):
        fleet.wire.lead_to(port)
        for name in DEVICES:
            fleet.start(name)
        strangers_run_nothing(fleet)
        strangers_take_no_task(fleet)
        operators_choice_is_sent(fleet)
        assert proxy.given >= len(DEVICES) and not proof.exists()
    fleet.stop("server")
    current = {records(fleet)[0].version, records(fleet)[-1].version}
    assert {version_at(DeviceFolder(fleet.folder / name).versions / LAST) for name in DEVICES} <= current
    assert "everything that was checked holds" in fleet.do("verify", str(fleet.server))


def operators_choice_is_sent(fleet: LoopbackFleet) -> None:
    """A candidate that waits is approved, and then the fleet goes back to the first version."""
    # Which games the devices play follows from keys of their own, so that this may take a cycle or two.
    tended(fleet, lambda: any(record.decision == "waiting" for record in records(fleet)))
    first, server = records(fleet)[0].version, str(fleet.server)
    assert {record.version for record in records(fleet)} == {first}, "what waits is not played"
    approved = re.findall(r"(\w+) is current: approved by an operator", fleet.do("approve", server))[0]
    assert approved != first and re.search(rf"{approved} .* waiting, then approved", fleet.do("versions", server))
    taken(fleet, approved)
    assert f"{first} is current" in fleet.do("rollback", server, first[:8])
    taken(fleet, first)


def taken(fleet: LoopbackFleet, version: str) -> None:
    """Wait for the cycle that takes the last choice and for the one behind it, which asks devices about that version.

    A cycle that has collected something about another version by then ends without one; whether it has is the clock's.
    """
    run, journal = fleet.server / "run", locate(fleet.server).journal()

    def taking() -> Entry | None:
        entry = journal.last(TAKEN)
        return entry if entry and entry.values["version"] == version else None

    tended(fleet, lambda: taking() is not None)
    entry = taking()
    assert entry
    cycle = int(entry.values["cycle"])
    tended(fleet, lambda: (cycle_folder(run, cycle + 1) / "collect.npz").exists())
    record = records(fleet)[cycle]
    assert record.version == version and (record.decision == "overruled") == entry.values["overruled"]
    assert load_phase(run, cycle + 1, "collect").values["version"] == version
