"""A fleet of three machines and a hostile one between, in namespaces: what each of them reaches and sees of the others.

The SuperLink listens on an address that devices reach, without a proxy. One of the devices takes the hostile machine
for the server, as after a forged answer of the name service; it has the server's certificate and key.
"""

from __future__ import annotations

import os
import socket
import ssl
from collections.abc import Iterator, Mapping
from http.client import HTTPSConnection
from pathlib import Path

import numpy as np
import pytest
from flwr.supercore.protobuf.constants import PROTOBUF_MEDIA_TYPE

from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.settings import read_settings
from fedoel.protocol.fleet.trust import MASKED as MASKED_ONLY
from fedoel.protocol.host.files import replace_file
from fedoel.protocol.host.processes import descendants
from fedoel.server.operate.folder import ServerFolder, Settings
from fedoel.server.operate.roll import read_roll
from fedoel.simulations.loopback import SHORTEST_HEARTBEAT, LoopbackFleet
from fedoel.simulations.loopback_sum import STRATEGY, expected, released

from .conftest import begin_ledger, give_keys, keys, records, summary, tidy_run
from .hostile_proxy import hostile_fab, hostile_proxy
from .namespaces import TOOLS, Machine, NoNamespaces, machines

DEVICES, NAME, PORT = ("one", "two", "three"), "fleet.test", 8443
RUN = tidy_run(len(DEVICES), cycles=1).replace('name = "mean"', f'name = "{STRATEGY}"')
FLEET_API, OTHER_APIS = "/v1/fleet/pull-messages", ("/v1/control/list-runs", "/v1/runtime/acquire-task", "/health")


@pytest.fixture
def on(tmp_path: Path) -> Iterator[Mapping[str, Machine]]:
    """The machines by name, where this machine allows them."""
    try:
        with machines(["server", *DEVICES, "hostile"], tmp_path) as made:
            yield made
    except NoNamespaces as error:
        pytest.skip(f"no machines in namespaces: {error}")


@pytest.fixture
def fleet(on: Mapping[str, Machine], tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    """A fleet that has joined. Each of its machines sees its own folder; `three` has a forged name of the server."""
    settings = Settings((NAME,), PORT, f"{on['server'].address}:{PORT}")
    made = LoopbackFleet(
        tmp_path / "fleet", DEVICES, SHORTEST_HEARTBEAT, server_settings=settings,
        within={name: machine.enter for name, machine in on.items()},
    )  # fmt: skip
    made.make(RUN)
    made.notes.mkdir()
    give_keys(made, keys(1, len(DEVICES)))
    known = " ".join(device.identity for device in read_roll(ServerFolder(made.server).roll).devices)
    for name in DEVICES:  # beside what the fleet proposes, each owner says whom he knows
        device = DeviceFolder(made.folder / name)
        replace_file(device.settings, device.settings.read_text().replace('known = ""', f'known = "{known}"'))
    for name in ("server", *DEVICES):
        own, aside, hosts = (
            ["server", "notes"] if name == "server" else [name],
            tmp_path / f"aside-{name}",
            tmp_path / name,
        )
        aside.mkdir()
        on[name].show(made.folder, own, aside)
        hosts.write_text(f"127.0.0.1 localhost\n{on['hostile' if name == 'three' else 'server'].address} {NAME}\n")
        on[name].mount(hosts, Path("/etc/hosts"))
        on[name].path(made.folder / "sitecustomize.py").write_bytes((made.folder / "sitecustomize.py").read_bytes())
    try:
        yield made
    finally:
        made.end()


def answering(machine: Machine, other: Machine) -> set[int]:
    """Ports of another machine that something listens at, and that answer this machine."""

    def connect() -> set[int]:
        found = set[int]()
        for port in other.listening():
            with socket.socket() as connection:
                connection.settimeout(5)
                if not connection.connect_ex((other.address, port)):
                    found.add(port)
        return found

    return machine.inside(connect)


def status(machine: Machine, server: Machine, path: str, authority: Path, secret: str) -> int:
    """Return what the SuperLink answers to an empty request from a machine, which brings the owner's secret."""

    def ask() -> int:
        context = ssl.create_default_context(cafile=str(authority))  # the certificate has to name the address
        connection = HTTPSConnection(server.address, PORT, context=context, timeout=20)
        connection.request(
            "POST", path, b"", {"content-type": PROTOBUF_MEDIA_TYPE, "authorization": f"Bearer {secret}"}
        )
        return connection.getresponse().status

    return machine.inside(ask)


def nobody_reaches_more_than_the_fleet_api(fleet: LoopbackFleet, on: Mapping[str, Machine]) -> None:
    """The control API does not answer another machine even where that has stolen the owner's secret."""
    folder = ServerFolder(fleet.server)
    secret = folder.control_secret.read_text()
    for name in (*DEVICES, "hostile"):
        assert answering(on[name], on["server"]) == {PORT}
        found = {path: status(on[name], on["server"], path, folder.ca_certificate, secret) for path in OTHER_APIS}
        assert found == dict.fromkeys(OTHER_APIS, 404)
        assert status(on[name], on["server"], FLEET_API, folder.ca_certificate, secret) == 401
    assert all(on[name].listening() and not answering(on["server"], on[name]) for name in DEVICES)
    here = [status(on["server"], on["server"], path, folder.ca_certificate, secret) for path in OTHER_APIS]
    assert here == [200, 401, 405]  # the owner's secret opens the control API only, and nobody posts to the last
    assert status(on["server"], on["server"], OTHER_APIS[0], folder.ca_certificate, "") == 401


def everybody_is_at_home(fleet: LoopbackFleet, on: Mapping[str, Machine]) -> None:
    """All processes run in the namespaces of their machine, which has the folder of no other."""
    for name in ("server", *DEVICES):
        running = descendants(fleet.running[name].pid)
        assert len(running) > 2 and all(on[name].has(pid) for pid in running)
        own = {name, "notes"} if name == "server" else {name}
        found = {path.name for path in on[name].path(fleet.folder).iterdir()} - {"__pycache__"}
        assert found == {"sitecustomize.py", *own}


@pytest.mark.slow
def test_three_machines_and_a_hostile_one_make_a_secure_sum_and_reach_nothing_else(
    fleet: LoopbackFleet, on: Mapping[str, Machine]
) -> None:
    proof = fleet.folder / "three" / "hostile code ran"
    fleet.start("server")
    fleet.wait(lambda: "3 devices may connect" in fleet.said("server"), 300)
    begin_ledger(fleet.server / "run")
    fab, target = hostile_fab(fleet.server / "flower" / "app", proof), (on["server"].address, PORT)
    between = hostile_proxy(fleet.server, target, fab, (on["hostile"].address, PORT))
    _, proxy = on["hostile"].inside(between.__enter__)
    try:
        for name in DEVICES:
            fleet.start(name)
        fleet.wait(lambda: all("Receiving" in fleet.log(name) for name in DEVICES), 300)
        everybody_is_at_home(fleet, on)
        nobody_reaches_more_than_the_fleet_api(fleet, on)
        fleet.wait(lambda: fleet.over("server"), 300)
    finally:
        between.__exit__(None, None, None)
    assert fleet.running.pop("server").returncode == 0, fleet.said("server")
    wanted = expected(fleet.server, [fleet.folder / name for name in DEVICES], 1, fleet.notes)
    assert wanted.any() and np.array_equal(released(fleet.server, 1), wanted)
    [_, cycle] = records(fleet)
    assert (cycle.accepted, cycle.refused) == (len(DEVICES), {}) and summary(fleet.folder)["privacy"]["secure_sum"]
    for name in DEVICES:
        trust = read_settings(DeviceFolder(fleet.folder / name).settings).trust
        assert trust.verbs == MASKED_ONLY and len(trust.known.split()) == len(DEVICES)
    assert proxy.given and not proof.exists()


def test_without_root_or_tools_the_reason_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(NoNamespaces, match="there is no ip, mount, nsenter, unshare here"), machines(["one"], tmp_path):
        pass
    for tool in TOOLS:
        (tmp_path / tool).write_text("#!/bin/sh\necho not permitted >&2; exit 1\n")
        (tmp_path / tool).chmod(0o755)
    with pytest.raises(NoNamespaces, match="only root makes them"), machines(["one"], tmp_path):
        pass
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    with pytest.raises(NoNamespaces, match="cannot be made here: not permitted"), machines(["one"], tmp_path):
        pass
