"""A server that writes down what it is told, for strategies under test."""

from __future__ import annotations

from dataclasses import dataclass, field
from logging import getLogger
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.signing import sign_terms
from fedoel.strategies.server_side import AskFleet, Traffic

OWNER = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
FLEET_KEY = OWNER.public_key().public_bytes_raw()


def terms_signature(text: bytes) -> bytes:
    """Sign the terms of a secure sum as the fleet's owner does."""
    return sign_terms(OWNER, text)


@pytest.fixture(autouse=True)
def heard(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let Flower's log reach every test: `caplog` hears what loggers hand on."""
    monkeypatch.setattr(getLogger("flwr"), "propagate", True)


@dataclass
class Ledger:
    """Asks for one kind of vector, and has kept nothing on disk unless it is said to be `done`."""

    spec: VectorSpec
    safeguards: Any = field(default_factory=lambda: SimpleNamespace(log=None, notice=None, deployed=False))
    most_games: int = 100
    done: set[tuple[int, int]] = field(default_factory=set)
    steps: list[str] = field(default_factory=list)
    aggregates: list[Aggregate | None] = field(default_factory=list)
    traffic: list[Traffic] = field(default_factory=list)

    def start(self) -> None:
        self.steps.append("start")

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        self.steps.append(f"request {cycle}.{exchange}")
        return PlayRequest(cycle, exchange, self.spec, np.zeros((1, 2), np.float32), {})

    def reached(self, nodes: list[int]) -> list[int]:
        return nodes

    def collected(self, cycle: int, exchange: int) -> bool:
        return (cycle, exchange) in self.done

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        self.steps.append(f"collect {cycle}.{exchange}")
        self.aggregates.append(aggregate)
        self.traffic.append(traffic)

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        raise NotImplementedError

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        return self.aggregates[-1] if self.aggregates else None

    def consolidate(self, cycle: int, ask: AskFleet) -> None:
        self.steps.append(f"consolidate {cycle}")
