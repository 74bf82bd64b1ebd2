"""What a strategy is given of the server: its rounds, the life cycle of its run, and what protects the cohort."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Protocol

from ..protocol.experience import Aggregate, ExperienceVector, VectorSpec
from ..protocol.fleet.log import LogExtract
from ..protocol.fleet.notice import Notice
from ..protocol.messages import PlayRequest
from ..protocol.privacy.plan import PrivacyPlan

AskFleet = Callable[[PlayRequest, int], Aggregate | None]
"""Ask a part of the fleet, numbered from 1, for a trial, and return the sum of its answers; None if there is none."""


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
    """What a round needs: a request to send, a place for what came back, and what came before.

    A cycle has one exchange with the cohort or several, numbered from 1; each is one of Flower's rounds.
    """

    def request(self, cycle: int, exchange: int) -> PlayRequest:
        """Return what the cohort is asked to do in this exchange."""

    def reached(self, nodes: list[int]) -> list[int]:
        """Return the nodes that the current version goes to: all but in the stages of a rollout."""

    def collect(self, cycle: int, exchange: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Keep what the cohort sent; None when nothing could be used."""

    def collected_before(self, cycle: int, exchange: int) -> Aggregate | None:
        """Return the aggregate that was kept last before this exchange; None when there was none yet."""

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        """Return what the server learned itself in this exchange, from public games that it played as the cohort did.

        A root of trust: nobody else has touched it.
        """


class LifeCycle(Protocol):
    """What surrounds the rounds of a run. Each step is kept on disk when it ends, so that a run can be resumed."""

    def start(self) -> None:
        """Make or load the first version (the warm start), and evaluate it: cycle 0."""

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether this exchange is on disk already, from a run that was interrupted."""

    def consolidate(self, cycle: int, ask: AskFleet) -> None:
        """End a cycle: context, distillation, gate, promotion and evaluation for what was collected.

        Parameters
        ----------
        ask
            For a gate that asks the fleet.
        """


class Safeguards(Protocol):
    """Decides what may be released, and writes it down before it is."""

    @property
    def members(self) -> Collection[bytes]:
        """Public keys of the fleet's devices."""

    @property
    def signed_members(self) -> bytes:
        """The same list as the fleet's owner has signed it, for devices to check; empty if they have it."""

    @property
    def log(self) -> LogExtract | None:
        """The newest part of the fleet's log, which is sent with every request; None in a simulation."""

    @property
    def notice(self) -> Notice | None:
        """The newest notice of the fleet's owner, signed, which is sent with every message; None if there is none."""

    def acknowledge(self, notice: Notice, nodes: Collection[int]) -> None:
        """Write down which nodes have acknowledged a notice."""

    @property
    def deployed(self) -> bool:
        """Whether devices are machines of others, which may have another release; a simulation has one release."""

    @property
    def colluding(self) -> float:
        """Share of a cohort that may work together with the server."""

    @property
    def max_dropout(self) -> float:
        """Share of a cohort that may drop out."""

    @property
    def noisy(self) -> bool:
        """Whether releases are differentially private, so that cohorts must be drawn at random and independently."""

    @property
    def staged(self) -> bool:
        """Whether versions go to a part of the fleet first, so that cohorts differ in size."""

    def sample(self, spec: VectorSpec | None = None) -> int:
        """Devices that a release of such vectors, by default of experience, draws on average."""

    def chance(self, spec: VectorSpec | None = None) -> float:
        """Chance of each device to be drawn for such a release."""

    @property
    def secret(self) -> int:
        """A number unknown to devices, to draw cohorts with: hiding from who knows the cohort takes more noise."""

    def enough(self, nodes: int) -> bool:
        """Whether enough nodes are there to draw a cohort from."""

    def releasable(self, cohort: int) -> bool:
        """Whether a sum over a drawn cohort of this size can be released; if not, another one is drawn."""

    def plan(self, spec: VectorSpec, cohort: int | None = None) -> PrivacyPlan:
        """Return the plan of a release, of a cohort that was drawn or by default of any that may be drawn."""

    def public_factor(self, spec: VectorSpec) -> float:
        """Return the variance of a published sum's noise, as a multiple of that of the fewest survivors."""

    def begin_round(self) -> tuple[str, int]:
        """Return the run's random name and the number of a round that was never used, not even before a crash."""

    def sign_terms(self, text: bytes) -> bytes:
        """Return the signature of a round's terms with the fleet's key, which devices check."""

    def check_budget(self) -> None:
        """Refuse another release.

        Raises
        ------
        PrivacyError
            If it would exceed the budget.
        """

    def spend(self, cycle: int) -> None:
        """Write one more release of a cycle down, on disk, before it happens; raises as `check_budget` does."""


class ServerSide(Rounds, LifeCycle, Protocol):
    """All that a strategy is given of the server."""

    @property
    def most_games(self) -> int:
        """Most games that a device plays in an exchange."""

    @property
    def safeguards(self) -> Safeguards:
        """What protects the cohort."""
