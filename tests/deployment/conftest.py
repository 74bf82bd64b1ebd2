"""A fleet as processes on the loopback interface: a server and devices, through the command line that people use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedoel.simulations.loopback import SHORTEST_HEARTBEAT, LoopbackFleet
from fedoel.simulations.loopback_sum import STRATEGY

DEVICES = ("one", "two", "three", "four")
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
min-available-nodes = 4
patience = 3600.0
"""


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[LoopbackFleet]:
    """A server's folder and four devices that have joined; nothing runs yet."""
    made = LoopbackFleet(tmp_path, DEVICES, SHORTEST_HEARTBEAT)
    made.make(RUN)
    yield made
    made.end()
