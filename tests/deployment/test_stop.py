"""The kill switch in a fleet of processes: devices have the stop with their next message, and the run goes on later."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedoel.client.device.folder import DeviceFolder
from fedoel.protocol.fleet.notice import kept_notice
from fedoel.simulations.loopback import LoopbackFleet

from .conftest import loopback_fleet, records, tended, tidy_run

DEVICES, WHY = ("one", "two"), "the answers are in the wrong language"
RUN = tidy_run(len(DEVICES), cycles=30)


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    with loopback_fleet(tmp_path, DEVICES, RUN) as made:
        yield made


def stopped(fleet: LoopbackFleet) -> list[bool]:
    """Whether each device has the stop on its disk."""
    notices = [kept_notice(DeviceFolder(fleet.folder / name).notice) for name in DEVICES]
    return [notice is not None and notice.stop for notice in notices]


def accepted(fleet: LoopbackFleet) -> list[int]:
    """How many devices were in each cycle that has ended, without cycle 0."""
    return [record.accepted for record in records(fleet)[1:]]


@pytest.mark.slow
def test_a_running_fleet_stops_and_goes_on(fleet: LoopbackFleet) -> None:
    fleet.start("server")
    fleet.wait(lambda: "2 devices may connect" in fleet.said("server"), 120)
    for name in DEVICES:
        fleet.start(name)
    tended(fleet, lambda: bool(accepted(fleet)))
    fleet.do("server", "stop", str(fleet.server), "--reason", WHY)
    tended(fleet, lambda: all(stopped(fleet)))
    tended(fleet, lambda: "2 of 2 devices have acknowledged it" in fleet.do("server", "status", str(fleet.server)))
    assert WHY in str(kept_notice(DeviceFolder(fleet.folder / "one").notice))
    before = len(accepted(fleet))
    time.sleep(3)  # longer than a cycle
    assert len(accepted(fleet)) == before and not fleet.over("server")
    fleet.do("server", "go-on", str(fleet.server))
    # The cycle that was stopped may end without a message; the next one brings the notice to every device.
    tended(fleet, lambda: len(accepted(fleet)) > before and not any(stopped(fleet)))
    assert set(accepted(fleet)) == {len(DEVICES)}
    fleet.stop("server")
    assert "everything that was checked holds" in fleet.do("verify", str(fleet.server))
