"""Server and devices as processes: TLS, node authentication and a secure sum, and a device that loses its power."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from .conftest import Processes

MASKED = "Receiving: train.masked message"


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "server" / "run" / "summary.json").read_bytes())
    return found


@pytest.mark.slow
def test_a_fleet_learns_and_stands_the_death_of_a_device(fleet: Processes) -> None:
    """Two cycles: all three devices in the first; in the second, one is killed while it plays.

    Flower takes a node for alive for a minute after its last sign of life, so the second cycle takes that long.
    """
    fleet.start("server", "server", "start", "server")
    fleet.wait(lambda: "3 devices may come in" in fleet.said("server"), 120)
    for name in ("one", "two", "three"):
        fleet.start(name, "device", "start", name)
    fleet.wait(lambda: fleet.log("one").count(MASKED) == 2, 240, every=0.02)
    fleet.kill("one")
    assert "this device is ready" in fleet.do("device", "doctor", "two")
    fleet.wait(lambda: fleet.running["server"].poll() is not None, 300)
    assert fleet.running["server"].returncode == 0, fleet.said("server")
    found = summary(fleet.folder)
    first, second = found["cycles"][1:]
    assert found["privacy"]["secure_sum"]
    assert (first["accepted"], first["refused"]) == (3, {})
    assert second["accepted"] == 2
    assert [reason for reason in second["refused"] if reason.startswith("masked: ")]
    assert second["decision"] != "no-experience"
    status = fleet.do("device", "status", "two") if fleet.running["two"].poll() is None else ""
    assert "8 episodes, 0 damaged" in status and "8 games today" in status
    assert "===" in fleet.do("play", "--device", "two", "--seed", "1")
    assert [fleet.stop(name) for name in ("two", "three")] == [0, 0]
    assert not fleet.running.keys() - {"server"}
