"""What a device writes down of what it gives: a vector counts once for each exchange, and costs epsilon.

A contribution counts from the moment in which it leaves the device, masked or not: others can open a masked one without
its device. The server may have lost it nonetheless, because it crashed or because too many devices dropped out, and
asks for the same exchange in a new round. The device answers again if nobody can open the earlier round any more:

* it has not confirmed the earlier round's survivors itself, and
* of its neighbours in the earlier round, as many as that round's threshold t have signed keys for the new one.

A device takes part in the last round only that it has begun, and in none for an exchange of which it has confirmed a
round. Whoever has signed keys for the new round has therefore opened nothing in the earlier one, and never will. Of k
neighbours, c of which collude, k - t + c are left to give shares of the earlier mask. As 2t > k + c
(`fedoel.protocol.secagg.graph`), that is less than t.

Without noise, a device gives one vector of experience in a cycle: those of two exchanges are of the same games. A
request counts in one run: whoever has a signed request and no key of the fleet cannot make another run of it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from ..protocol.errors import FedoelError
from ..protocol.fleet.trust import Trust
from ..protocol.secagg.device import Round, cohort_keys, neighbours_keys
from ..protocol.secagg.messages import Exchange
from ..protocol.secagg.terms import Terms


@dataclass(frozen=True, slots=True)
class Contribution:
    """A vector that is about to leave the device.

    Parameters
    ----------
    run, exchange
        What it is for.
    request
        Fleet and serial number of the request that asks for it.
    noise
        Noise multiplier that hides it; 0 for none.
    loss
        Epsilon on top, for noise that is discrete.
    round
        Digest of the terms of its secure sum; empty for a vector that is sent by itself.
    threshold, neighbours
        Of its secure sum: the shares that open it, and the public keys of those that hold them.
    cohort
        Public keys of all others that have signed keys for this secure sum.
    """

    run: str
    exchange: Exchange
    request: str
    noise: float
    loss: float = 0.0
    round: bytes = b""
    threshold: int = 0
    neighbours: frozenset[bytes] = frozenset()
    cohort: frozenset[bytes] = frozenset()

    @classmethod
    def masked(cls, state: Round, request: str, noise: float, loss: float) -> Contribution:
        """Return the contribution to a secure sum."""
        terms = state.terms
        return cls(
            terms.run, Exchange.of(terms), request, noise, loss, terms.digest, terms.threshold,
            neighbours_keys(state), cohort_keys(state),
        )  # fmt: skip

    @classmethod
    def alone(cls, request: str, noise: float) -> Contribution:
        """Return the contribution of a vector by itself, in answer to a request."""
        return cls("", Exchange(0, f"request {request}"), request, noise)


class Contributions(Protocol):
    """Where a device writes down what it gives and what it refuses."""

    def begin(self, terms: Terms, trust: Trust) -> None:
        """Write down that a round begins; no earlier one of its run goes on.

        Raises
        ------
        TrustError
            If the device has confirmed a round for the same exchange, or has shared in as many as its owner allows.
        SecureSumError
            If a later round of this run has begun.
        StoreError
            If it cannot be written down.
        """

    def share(self, terms: Terms, trust: Trust) -> None:
        """Count a round of an exchange in which the device is about to hand out shares of its secrets.

        Raises
        ------
        TrustError
            If its owner allows no more of them.
        SecureSumError
            If it has handed out shares in this round before, which its node can have lost (see `confirm`): of two
            draws of neighbours, either can be told another story.
        StoreError
            If it cannot be written down.
        """

    def check_current(self, terms: Terms) -> None:
        """Raise `SecureSumError` unless this is the last round of its run that has begun."""

    def check(self, contribution: Contribution, trust: Trust) -> None:
        """Refuse a contribution before anything is played for it; raises as `add` does."""

    def add(self, contribution: Contribution, trust: Trust) -> None:
        """Write a contribution down, before it leaves the device.

        Raises
        ------
        TrustError
            If the exchange has one already that may still be opened, or the epsilon of a year would be exceeded.
        StoreError
            If it cannot be written down.
        """

    def confirm(self, terms: Terms, survivors: bytes) -> None:
        """Write down that the device helps to open a round, and over which survivors, before it signs these.

        Raises
        ------
        SecureSumError
            If it has signed other survivors of the round: its node can have lost that, if its process died before
            the node had the new state, but after the signature had left.
        StoreError
            If it cannot be written down.
        """

    def refuse(self, error: FedoelError) -> None:
        """Count a refusal, and keep its sentence for the owner."""


@dataclass(frozen=True, slots=True)
class Unrecorded:
    """For simulated devices, whose runs are repeated at will: nothing is written down."""

    def begin(self, terms: Terms, trust: Trust) -> None:
        """Do nothing."""

    def share(self, terms: Terms, trust: Trust) -> None:
        """Do nothing."""

    def check_current(self, terms: Terms) -> None:
        """Do nothing."""

    def check(self, contribution: Contribution, trust: Trust) -> None:
        """Do nothing."""

    def add(self, contribution: Contribution, trust: Trust) -> None:
        """Do nothing."""

    def confirm(self, terms: Terms, survivors: bytes) -> None:
        """Do nothing."""

    def refuse(self, error: FedoelError) -> None:
        """Do nothing."""
