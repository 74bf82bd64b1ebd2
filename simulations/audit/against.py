"""Against whom a run's promises hold, in the words of its privacy card."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ...protocol.fleet.trust import Trust
from ...protocol.secagg.graph import least_threshold
from ...server.operate.proposal import least_cohort
from ...strategies.mean import LocalMean
from .target import ActiveAttack, Target

NETWORK = (
    "who sends how much, and when. In a deployment it reads nothing (TLS), and cannot change what a device is asked "
    "for (signatures). Not attacked here"
)
LOCAL_USER = (
    "which processes run. In a deployment folders and keys are their owner's alone, and tasks ask for a secret. Not "
    "attacked here"
)


@dataclass(frozen=True, slots=True)
class Holds:
    """What somebody sees of a device, at most."""

    who: str
    sees: str


def against(target: Target, attacks: Sequence[ActiveAttack]) -> Iterator[Holds]:
    """Say against whom the promises of a run hold, given what the attacks on it have found."""
    if target.safeguards.noisy and target.safeguards.accounted < target.safeguards.population:
        yield Holds("whoever gets versions, manifests or cards", f"{_epsilon(target, sampled=True)}, with sampling")
    curious = _curious(target)
    yield Holds("a curious server", curious)
    broken = [made.attack for made in attacks if made.broken]
    cheating = f"more than was promised: {', '.join(broken)}" if broken else _cheating(target, curious)
    yield Holds("a server that cheats, with all keys of the fleet", cheating)
    yield Holds("the same, with members of its own", cheating if broken else _with_members(target, curious))
    yield Holds("the network", NETWORK)
    yield Holds("another user of a device's or the server's machine", LOCAL_USER)


def _epsilon(target: Target, sampled: bool) -> str:
    """Return the epsilon of all releases."""
    from ...server.accounting import Release, epsilon_of

    safeguards = target.safeguards
    sample = safeguards.accounted if sampled else safeguards.population
    release = Release(safeguards.noise_multiplier, sample, safeguards.population)
    return f"epsilon {epsilon_of(release, safeguards.releases, safeguards.accounted_delta):.2f}"


def _curious(target: Target) -> str:
    if isinstance(target.strategy, LocalMean):
        return f"the vector of each device, with noise of the device's own: {_epsilon(target, sampled=False)}"
    if not target.secure:
        return "the vector of each device"
    noise = f", with noise: {_epsilon(target, sampled=False)}, without sampling" if target.safeguards.noisy else ""
    return f"sums over {_fewest(target)} devices or more, of no device its vector{noise}"


def _fewest(target: Target) -> int:
    """Return the fewest survivors of a secure sum of the run: with noise, of the smallest cohort that may be drawn."""
    planned: int = target.strategy.plan(target.spec).minimum  # type: ignore[attr-defined]
    return min(planned, least_cohort(target.small)) if target.safeguards.noisy else planned


def _cheating(target: Target, curious: str) -> str:
    trust = target.trust
    if not target.secure:
        return f"{curious}; at least {trust.least_noise:g} noise" if trust.least_noise else curious
    noise = f"with a noise multiplier of {trust.least_noise:g} or more" if trust.least_noise else "without noise"
    return f"one sum for an exchange, over {trust.least_cohort} devices or more, {noise}, as its owner's settings say"


def _with_members(target: Target, curious: str) -> str:
    if not target.secure:
        return _cheating(target, curious)
    trust = target.trust
    honest = fewest_honest(trust)
    if trust.known:
        return "the same: its members are none of the devices that owners know, and count as colluding"
    return (
        f"sums over {honest} honest devices or more, as long as {trust.colluding:.0%} of a cohort at most are its own. "
        "Beyond that, all of it: only an owner who names the devices that he knows (`trust.known`) is not told so"
    )


def fewest_honest(trust: Trust) -> int:
    """Return the fewest honest devices in a sum, if as many of a cohort collude as the owner assumes.

    The server chooses the cohort. A device helps to open a sum that a threshold of its neighbours has confirmed, all of
    which, and itself, are in the sum unless they collude.
    """
    sizes = range(3, 3 * max(20, trust.least_cohort))
    return min(
        max(trust.least_cohort, least_threshold(size, size - 1, trust.colluding) + 1)
        - math.floor(trust.colluding * size)
        for size in sizes
    )
