"""The parts of a small run without a language model, for the stages of a cycle."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.server.app import prepare
from fedoel.server.cycle.server import CycleServer
from fedoel.server.fleet import make_fleet


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    return RunConfig.from_flat({
        "games.families": "frozen-lake size=3 turns=3", "games.per-client": 1, "games.rehearsal": 4, "games.gate": 4,
        "games.held-out": 4, "policy.backend": "tactics", "out": str(tmp_path / "run"), "clients": 2,
        "server.public": "games",
    })  # fmt: skip


@pytest.fixture
def server(config: RunConfig, cache: Path) -> Iterator[CycleServer]:
    """A server that has been through cycle 0."""
    make_fleet(Path(config.out) / "keys", config.clients)
    _, server = prepare(config, cache)
    with server.run.log:
        server.start()
        yield server
