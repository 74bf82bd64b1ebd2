"""A fleet as processes on the loopback interface: a server and devices, through the command line that people use."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from fedoel.simulations.loopback import SHORTEST_HEARTBEAT, LoopbackFleet
from fedoel.simulations.loopback_sum import STRATEGY

MASKED = "Receiving: train.masked message"
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
    made = LoopbackFleet(tmp_path, DEVICES, SHORTEST_HEARTBEAT)
    made.make(RUN)
    yield made
    made.end()


def summary(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "server" / "run" / "summary.json").read_bytes())
    return found


def tended(fleet: LoopbackFleet, what: Callable[[], bool], every: float = 0.1) -> None:
    """Wait for something, while services start again what has ended."""

    def there() -> bool:
        fleet.tend()
        return what()

    fleet.wait(there, 300, every)
