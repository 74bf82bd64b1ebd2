"""What a strategy needs of the server in a round: a request to send, a place for the result, and earlier results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..protocol.experience import Aggregate, ExperienceVector
from ..protocol.messages import PlayRequest


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


class Rounds(Protocol):
    """The server's side of Flower's rounds. A cycle has one exchange with the cohort or several, numbered from 1."""

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """Return what the cohort is asked to do in this exchange."""
        ...

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep what the cohort sent; None when nothing could be used."""
        ...

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        """Return the aggregate that was kept last before this exchange; None when there was none yet."""
        ...

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        """Return what the server learned itself in this exchange, from public games that it played as the cohort did.

        A root of trust: nobody else has touched it.
        """
        ...
