"""What a strategy hands its aggregates to: the server's half of a cycle, injected into it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..protocol.experience import Aggregate, ExperienceVector
from ..protocol.messages import PlayRequest
from .safeguards import Safeguards


@dataclass(frozen=True, slots=True)
class Traffic:
    """What one exchange with the cohort cost, and what was refused.

    `uplink_bytes` and `downlink_bytes` are means per client over serialised message contents. `refused` counts the
    replies that were not used, by reason.
    """

    uplink_bytes: float
    downlink_bytes: float
    accepted: int
    refused: Mapping[str, int]


class Consolidator(Protocol):
    """The server's half of a cycle. Each step is kept on disk when it ends, so that a run can be resumed.

    A cycle has one exchange with the cohort or several, numbered from 1.
    """

    @property
    def safeguards(self) -> Safeguards:
        """What protects the cohort."""
        ...

    def start(self) -> None:
        """Make or load version 1 (the warm start) and evaluate it: cycle 0."""
        ...

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """What the cohort is asked to do in this exchange."""
        ...

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether this exchange's aggregate is already on disk, from a run that was interrupted."""
        ...

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep what the cohort sent; None when nothing could be used."""
        ...

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        """Return the aggregate that was kept last before this exchange; None when there was none yet."""
        ...

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        """What the server learned itself in this exchange, from the public games that it played as the cohort did."""
        ...

    def consolidate(self, cycle: int) -> None:
        """Context, distillation, gate, promotion and evaluation for what was collected."""
        ...
