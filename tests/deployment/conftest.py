"""A fleet as processes on the loopback interface: a server and devices, through the command line that people use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from fedoel.client.device.folder import DeviceFolder
from fedoel.protocol.host.files import replace_file
from fedoel.protocol.records.summary import CycleRecord
from fedoel.server.safeguards import LEDGER
from fedoel.server.summary import NAME as SUMMARY
from fedoel.server.summary import read_summary
from fedoel.simulations.loopback import SHORTEST_HEARTBEAT, LoopbackFleet
from fedoel.simulations.loopback_sum import STRATEGY

MASKED = "Receiving: train.masked message"
NAME = "ab"  # of the run in its secure sums
DEVICES = ("one", "two", "three", "four", "five")  # four, if one of them may collude, cannot do without one
RUN = f"""\
cycles = 2
[games]
families = "frozen-lake size=3 turns=6"
per-client = 4
rehearsal = 8
gate = 8
held-out = 20
[policy]
backend = "tactics"
[strategy]
name = "{STRATEGY}"
min-available-nodes = 5
patience = 3600.0
[server]
public = "games"
"""


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    """A server's folder and five devices that have joined; nothing runs yet."""
    with loopback_fleet(tmp_path, DEVICES, RUN) as made:
        give_keys(made, keys(1))  # with which every device has something to send
        yield made


@contextmanager
def loopback_fleet(folder: Path, devices: Sequence[str], run: str, only_server: str = "") -> Iterator[LoopbackFleet]:
    """Make a fleet whose devices have joined, and end its processes behind the block; parameters as of the fleet."""
    made = LoopbackFleet(folder, devices, SHORTEST_HEARTBEAT, only_server)
    made.make(run)
    try:
        yield made
    finally:
        made.end()


def keys(first: int, devices: int = len(DEVICES)) -> list[bytes]:
    """Return a key for every device; with the run's name, all of its games follow from it."""
    return [bytes([first, number] * 16) for number in range(devices)]


def give_keys(fleet: LoopbackFleet, keys: Sequence[bytes]) -> None:
    """Make the games repeatable, with `begin_ledger`: a deployed device draws them with a key of its own."""
    for name, key in zip(fleet.names, keys, strict=True):
        replace_file(DeviceFolder(fleet.folder / name).game_key, key.hex(), secret=True)


def begin_ledger(run: Path) -> None:
    """Give a run the name from which the devices' games follow, before its first round."""
    replace_file(run / LEDGER, json.dumps({"kind": "ledger", "run": NAME, "secret": 0}) + "\n", secret=True)


def tidy_run(devices: int, cycles: int) -> str:
    """A run whose games are made at once and whose cycles take few seconds, with every device in each of them."""
    return f"""\
cycles = {cycles}
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
min-available-nodes = {devices}
patience = 3600.0
[server]
public = "games"
"""


def records(fleet: LoopbackFleet) -> Sequence[CycleRecord]:
    """Records of the cycles that have ended, cycle 0 included."""
    run = fleet.server / "run"
    return read_summary(run).cycles if (run / SUMMARY).exists() else ()


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "server" / "run" / "summary.json").read_bytes())
    return found


def tended(fleet: LoopbackFleet, what: Callable[[], bool], every: float = 0.1) -> None:
    """Wait for something, while services start again what has ended."""

    def there() -> bool:
        fleet.tend()
        return what()

    fleet.wait(there, 300, every)
