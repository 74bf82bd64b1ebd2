"""What a strategy that protects the cohort needs from the server: a plan, a ledger, and the fleet's members."""

from __future__ import annotations

from collections.abc import Collection
from typing import Protocol

from ..protocol.experience import VectorSpec
from ..protocol.privacy.plan import PrivacyPlan


class Safeguards(Protocol):
    """Decides what may be released, and writes it down before it is."""

    @property
    def members(self) -> Collection[bytes]:
        """Public keys of the fleet's devices."""
        ...

    @property
    def signed_members(self) -> bytes:
        """The same list as the fleet's owner has signed it, for devices to check; empty if they have it."""
        ...

    @property
    def colluding(self) -> float:
        """Share of a cohort that may work together with the server."""
        ...

    @property
    def max_dropout(self) -> float:
        """Share of a cohort that may drop out."""
        ...

    @property
    def noisy(self) -> bool:
        """Whether releases are differentially private, so that cohorts must be drawn at random and independently."""
        ...

    @property
    def sample(self) -> int:
        """Devices that a release draws on average."""
        ...

    @property
    def chance(self) -> float:
        """Chance of each device to be drawn for a release."""
        ...

    @property
    def secret(self) -> int:
        """A number that devices do not know, to draw cohorts with: who knows a cohort needs more noise."""
        ...

    def plan(self, spec: VectorSpec) -> PrivacyPlan:
        """Return the plan that every release of this run follows."""
        ...

    def begin_round(self) -> tuple[str, int]:
        """Return the run's random name and the number of a round that was never used, not even before a crash."""
        ...

    def check_budget(self) -> None:
        """Refuse another release.

        Raises
        ------
        PrivacyError
            If it would exceed the budget.
        """
        ...

    def spend(self, cycle: int) -> None:
        """Write one more release of a cycle down, on disk, before it happens; raises as `check_budget` does."""
        ...
