"""Server and devices as processes: TLS, node authentication and a secure sum, whatever goes wrong between."""

from __future__ import annotations

import re
import time

import numpy as np
import pytest

from fedoel.simulations.loopback import SHORTEST_HEARTBEAT, LoopbackFleet
from fedoel.simulations.loopback_sum import expected, released

from .conftest import DEVICES, MASKED, begin_ledger, summary, tended

KEYS = "Receiving: query.keys message"


def is_the_sum_of(fleet: LoopbackFleet, cycle: int, devices: tuple[str, ...]) -> bool:
    wanted = expected(fleet.server, [fleet.folder / name for name in devices], cycle, fleet.notes)
    return bool(wanted.any()) and np.array_equal(released(fleet.server, cycle), wanted)


@pytest.mark.slow
def test_a_fleet_survives_the_death_of_a_device_a_cut_network_and_the_death_of_its_server(
    fleet: LoopbackFleet,
) -> None:
    """Two cycles of five devices. In the first, one is killed while it plays; it comes back for the second.

    In that, the network is cut while devices are asked for keys, and the server is killed in it and
    started again: its run goes on, and asks anew. Devices say every ten seconds that they live, three times as often as
    Flower has it, so that the dead one is missed the sooner.
    """
    fleet.start("server")
    fleet.wait(lambda: "5 devices may connect" in fleet.said("server"), 120)
    begin_ledger(fleet.server / "run")
    for name in DEVICES:
        fleet.start(name)
    fleet.wait(lambda: fleet.log("one").count(MASKED) == 1, 300, every=0.02)
    fleet.kill("one")
    assert "this device is ready" in fleet.do("device", "doctor", str(fleet.folder / "two"))
    status = fleet.do("server", "status", str(fleet.server))
    assert "5 enrolled" in status and status.count("online") >= 4
    tended(fleet, lambda: fleet.log("two").count(KEYS) == 2, every=0.02)
    fleet.wire.cut()
    fleet.kill("server")
    # A device that gives up at the cut is not there at once. A server that started now would still take it for alive.
    time.sleep(2 * SHORTEST_HEARTBEAT + 1)
    fleet.start("server")
    fleet.wait(lambda: fleet.said("server").count("5 devices may connect") == 2, 120)
    fleet.wire.mend()
    tended(fleet, lambda: fleet.over("server"))
    assert fleet.running.pop("server").returncode == 0, fleet.said("server")
    found = summary(fleet.folder)
    first, second = found["cycles"][1:]
    assert found["privacy"]["secure_sum"]
    assert first["accepted"] == 4
    assert [reason[:8] for reason in first["refused"]] == ["masked: "]
    assert (second["accepted"], second["refused"]) == (5, {})
    assert second["decision"] != "no-experience"
    assert is_the_sum_of(fleet, 1, DEVICES[1:]) and is_the_sum_of(fleet, 2, DEVICES)
    assert not is_the_sum_of(fleet, 2, DEVICES[1:])
    tended(fleet, lambda: not any(name not in fleet.running or fleet.over(name) for name in DEVICES))
    status = fleet.do("device", "status", str(fleet.folder / "two"))
    assert "8 episodes, 0 damaged" in status and "8 games today" in status
    [head] = re.findall(r"head (\d+:[0-9a-f]{64})", status)  # of the log, which went on when the server was killed
    assert f"the log has the head {head}" in fleet.do("server", "log", "verify", str(fleet.server), head)
    assert "===" in fleet.do("play", "--device", str(fleet.folder / "two"), "--seed", "1")
    assert [fleet.stop(name) for name in DEVICES] == [0] * len(DEVICES)
