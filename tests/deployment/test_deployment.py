"""Server and devices as processes: TLS, node authentication and a secure sum, and a device that loses its power."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.simulations.loopback import LoopbackFleet
from fedoel.simulations.loopback_sum import expected, released

from .conftest import DEVICES

MASKED = "Receiving: train.masked message"


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "server" / "run" / "summary.json").read_bytes())
    return found


def is_the_sum_of(fleet: LoopbackFleet, cycle: int, devices: tuple[str, ...]) -> bool:
    wanted = expected(fleet.server, [fleet.folder / name for name in devices], cycle, fleet.notes)
    return bool(wanted.any()) and np.array_equal(released(fleet.server, cycle), wanted)


@pytest.mark.slow
def test_a_fleet_learns_and_stands_the_death_of_a_device(fleet: LoopbackFleet) -> None:
    """Two cycles: all four devices in the first; in the second, one is killed while it plays, and three are left.

    Devices say every ten seconds that they live, three times as often as Flower has it, so that the dead one is missed
    the sooner. Of three, none could be missed: with two left, one that colludes would know the other's vector.
    """
    fleet.start("server")
    fleet.wait(lambda: "4 devices may come in" in fleet.said("server"), 120)
    for name in DEVICES:
        fleet.start(name)
    fleet.wait(lambda: fleet.log("one").count(MASKED) == 2, 300, every=0.02)
    fleet.kill("one")
    assert "this device is ready" in fleet.do("device", "doctor", str(fleet.folder / "two"))
    status = fleet.do("server", "status", str(fleet.server))
    assert "4 enrolled" in status and status.count("online") >= 3
    fleet.wait(lambda: fleet.over("server"), 300)
    assert fleet.running.pop("server").returncode == 0, fleet.said("server")
    found = summary(fleet.folder)
    first, second = found["cycles"][1:]
    assert found["privacy"]["secure_sum"]
    assert (first["accepted"], first["refused"]) == (4, {})
    assert second["accepted"] == 3
    assert [reason[:8] for reason in second["refused"]] == ["masked: "]
    assert second["decision"] != "no-experience"
    assert is_the_sum_of(fleet, 1, DEVICES) and is_the_sum_of(fleet, 2, DEVICES[1:])
    assert not is_the_sum_of(fleet, 1, DEVICES[1:])
    status = fleet.do("device", "status", str(fleet.folder / "two"))
    assert "8 episodes, 0 damaged" in status and "8 games today" in status
    assert "===" in fleet.do("play", "--device", str(fleet.folder / "two"), "--seed", "1")
    assert [fleet.stop(name) for name in DEVICES[1:]] == [0, 0, 0]
