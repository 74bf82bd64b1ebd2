"""An operator's choice reaches the devices of a fleet that is under way, without a restart."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.last_version import LAST, version_at
from fedoel.protocol.records.summary import CycleRecord
from fedoel.server.cycle.phases import load_phase
from fedoel.server.summary import NAME, read_summary
from fedoel.simulations.loopback import LoopbackFleet

from .conftest import loopback_fleet, tended

DEVICES = ("one", "two", "three")
RUN = """\
cycles = 8
[games]
families = "tidy things=1 final=0 turns=8"
per-client = 4
rehearsal = 16
gate = 16
held-out = 8
[policy]
backend = "tactics"
[strategy]
name = "mean"
min-available-nodes = 3
patience = 3600.0
[server]
public = "games"
"""


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    with loopback_fleet(tmp_path, DEVICES, RUN) as made:
        yield made


def records(fleet: LoopbackFleet) -> Sequence[CycleRecord]:
    """Records of the cycles that have ended, cycle 0 included."""
    run = fleet.server / "run"
    return read_summary(run).cycles if (run / NAME).exists() else ()


@pytest.mark.slow
def test_a_running_server_sends_what_an_operator_has_chosen(fleet: LoopbackFleet) -> None:
    fleet.start("server")
    fleet.wait(lambda: "3 devices may connect" in fleet.said("server"), 120)
    for name in DEVICES:
        fleet.start(name)
    # Which games the devices play follows from keys of their own, so that this may take a cycle or two.
    tended(fleet, lambda: any(record.decision == "promoted" for record in records(fleet)))
    first, second = records(fleet)[0], records(fleet)[-1]
    assert second.version in fleet.do("versions", str(fleet.server))
    assert f"{first.version} is current" in fleet.do("rollback", str(fleet.server), first.version[:8])
    # The cycle under way ends without a version, and the one behind it starts from what was chosen.
    tended(fleet, lambda: any(record.decision == "overruled" for record in records(fleet)[:-1]))
    cycle = next(record.cycle for record in records(fleet) if record.decision == "overruled")
    assert records(fleet)[cycle].version == first.version
    assert load_phase(fleet.server / "run", cycle + 1, "collect").values["version"] == first.version
    fleet.stop("server")
    played = {version_at(DeviceFolder(fleet.folder / name).versions / LAST) for name in DEVICES}
    assert played <= {first.version, records(fleet)[-1].version}
    assert "everything that was checked holds" in fleet.do("verify", str(fleet.server))
