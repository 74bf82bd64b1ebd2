"""Gates for runs that are too small to show a gain."""

from __future__ import annotations

from collections.abc import Sequence

from fedoel.server.gate import PublicGate, Trial, Verdict


class HoldingGate(PublicGate):
    """Promotes every candidate."""

    def candidate_holds(self, current: Trial, candidate: Trial) -> Verdict:
        return Verdict(True, "as the test wants it")


class OpenGate(HoldingGate):
    """Lets every context and every candidate pass."""

    def context_helps(self, current: Trial, teacher: Trial, choices: Sequence[str] = ()) -> Verdict:
        return Verdict(True, "as the test wants it")
