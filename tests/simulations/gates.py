"""Gates for runs that are too small to show a gain."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fedoel.codecs.encoder import Parameters
from fedoel.server.gate import Differences, Gate, Verdict
from fedoel.strategies.server_side import AskFleet


class HoldingGate:
    """Promotes every candidate, and does all else as another gate."""

    def __init__(self, gate: Gate) -> None:
        self.gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self.gate, name)

    def with_fleet(self, ask: AskFleet, parameters: Parameters) -> Gate:
        return type(self)(self.gate.with_fleet(ask, parameters))

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        return self.gate.context_helps(differences, choices)

    def candidate_holds(self, differences: Differences) -> Verdict:
        return Verdict(True, "as the test wants it")


class OpenGate(HoldingGate):
    """Lets every context and every candidate pass."""

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        return Verdict(True, "as the test wants it")
