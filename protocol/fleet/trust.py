"""What a device answers, whoever asks and whatever is signed: `[trust]` in its `device.toml`.

A device checks every request against its `Trust` before it loads anything for it. The terms of the server have to fit;
they never replace it. A fleet proposes values in its bundle, `fedoel device join` writes them down and shows them to
the device's owner, and from then on only the owner changes them.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Set
from dataclasses import dataclass, replace
from enum import StrEnum

from ..errors import ConfigError, TrustError
from ..secagg.graph import COLLUDING
from ..settings import setting, shown

PLAIN = ("experience", "trial")  # verbs whose answer is one device's vector by itself
MASKED = "masked"  # the verb of a secure sum, for experience and for trials
VERBS = (*PLAIN, MASKED)


class Refusal(StrEnum):
    """Why a device refuses a request: the code that the server counts."""

    VERB = "VerbRefused"
    CODEC = "CodecRefused"
    COHORT = "CohortTooSmall"
    STRANGERS = "TooManyStrangers"
    NOISE = "TooLittleNoise"
    EPSILON = "EpsilonSpent"
    STOPPED = "FleetStopped"  # by a notice of the fleet's owner
    ROUNDS = "TooManyRounds"  # of one exchange
    DONE = "AlreadyContributed"  # the device is out of this exchange, however often it is asked


@dataclass(frozen=True, slots=True)
class Asked:
    """What a request asks for, as far as the device can tell.

    Parameters
    ----------
    verb
        One of `VERBS`.
    codec
        Name of the run's codec.
    cohort
        Fewest devices that a secure sum may be over; None for a vector that is sent by itself.
    noise
        Noise multiplier that hides the vector, 0 for none; None where the request does not tell it yet.
    """

    verb: str
    codec: str
    cohort: int | None = None
    noise: float | None = None


@dataclass(frozen=True, slots=True)
class Trust:
    """What a device assumes about its fleet, and what it answers.

    The defaults are open: they refuse nothing but endless rounds of one exchange.

    Raises
    ------
    ConfigError
        If `verbs` names no verb, or one that does not exist.
    """

    colluding: float = setting(
        COLLUDING, "Share of a cohort that may collude with the server in a secure sum.", low=0, high=0.9
    )
    verbs: str = setting(
        " ".join(VERBS),
        "What it answers, in words: `masked` (secure sums), `experience` and `trial` (its vector by itself).",
    )
    least_cohort: int = setting(
        2, "Fewest devices of a secure sum, itself included, that it has checked to be members.", low=2, high=10_000
    )
    least_trial: int = setting(
        0,
        "The same of a secure sum of answers to a trial, which may be over a part of the fleet. 0 for as many as "
        "`trust.least-cohort`.",
        low=0,
        high=10_000,
    )
    least_noise: float = setting(
        0.0, "Smallest noise multiplier that hides its vector; 0 asks for no noise.", low=0, high=1000
    )
    epsilon_a_year: float = setting(
        0.0, "Most epsilon in any 365 days, at `trust.delta`, over all runs; 0 for no limit.", low=0, high=1e6
    )
    delta: float = setting(1e-6, "Delta at which `trust.epsilon-a-year` holds.", low=1e-15, high=0.1)
    codecs: str = setting("", "Codecs that may make its vector, separated by spaces; empty for any.")
    rounds: int = setting(
        100,
        "Most rounds of one exchange in which it hands out shares of its secrets. A server makes a round again in "
        "which too many devices dropped out. 0 for no limit.",
        low=0,
        high=10**6,
    )
    known: str = setting(
        "",
        "Devices that its owner knows, separated by spaces: `identity` in the `.pub` file of each. All others then "
        "count as colluding, and `trust.least-cohort` counts known devices only. Empty for no difference.",
    )
    health: bool = setting(
        False,
        "Whether its answers to trials count its class of machine, a process that died, an older version, time per "
        "turn and peak memory, where the run asks for it; otherwise these counts are zeros.",
    )

    def __post_init__(self) -> None:
        if wrong := [key for key in self.known.split() if not re.fullmatch("[0-9a-f]{64}", key)]:
            raise ConfigError(f"trust.known has {shown(wrong[0])}: give the 64 digits of `identity` in a .pub file")
        unknown = [verb for verb in self.verbs.split() if verb not in VERBS]
        if unknown or not self.verbs.split():
            raise ConfigError(f"trust.verbs must be some of {', '.join(VERBS)}, not {shown(self.verbs)}")

    def for_trial(self) -> Trust:
        """Return what holds for a secure sum of answers to a trial: its own smallest cohort, as `least_cohort`."""
        return replace(self, least_cohort=self.least_trial or self.least_cohort)

    def check(self, asked: Asked) -> None:
        """Refuse what the owner does not allow.

        Raises
        ------
        TrustError
            With a code of `Refusal` and a sentence for the owner.
        """
        if asked.verb not in self.verbs.split():
            what = "a secure sum" if asked.verb == MASKED else "a vector by itself"
            raise TrustError(Refusal.VERB, f"the server asks for {what} (`{asked.verb}`), and trust.verbs has it not")
        if self.codecs and asked.codec not in self.codecs.split():
            raise TrustError(Refusal.CODEC, f"the run's codec is {asked.codec!r}, and trust.codecs is {self.codecs!r}")
        if asked.cohort is not None and asked.cohort < self.least_cohort:
            raise TrustError(
                Refusal.COHORT,
                f"the sum may be over {asked.cohort} devices, and trust.least-cohort is {self.least_cohort}",
            )
        if asked.noise is not None and asked.noise < self.least_noise:
            raise TrustError(
                Refusal.NOISE,
                f"the noise multiplier is {asked.noise:.3g}, and trust.least-noise is {self.least_noise:g}",
            )

    def check_known(self, others: Set[bytes]) -> None:
        """Refuse a secure sum over devices of which this device's owner knows too few, if there is a list of these.

        Parameters
        ----------
        others
            Public keys of the other devices in the sum, whose signatures were checked, 32 bytes each.

        Raises
        ------
        TrustError
            If unknown devices are more than may collude, or known ones, this one included, fewer than `least_cohort`.
        """
        if not self.known:
            return
        strangers = self.count_strangers(others)
        friends = 1 + len(others) - strangers
        if strangers > math.floor(self.colluding * (1 + len(others))):
            raise TrustError(
                Refusal.STRANGERS,
                f"{strangers} of {1 + len(others)} devices are not in trust.known, and trust.colluding is "
                f"{self.colluding:.0%}",
            )
        if friends < self.least_cohort:
            raise TrustError(
                Refusal.COHORT,
                f"the sum is over {friends} devices of trust.known, this one included, and trust.least-cohort is "
                f"{self.least_cohort}",
            )

    def count_strangers(self, others: Set[bytes]) -> int:
        """Return how many of these devices are not in `known`, by their public keys, 32 bytes each."""
        return len(others - {bytes.fromhex(key) for key in self.known.split()})

    def words(self) -> Iterator[str]:
        """Say in one sentence each what this allows."""
        verbs = self.verbs.split()
        if MASKED in verbs:
            number = len(self.known.split())
            whose = f" of the {number} that its owner knows" if number else ""
            yield f"it takes part in secure sums over {self.least_cohort} devices or more{whose}, itself included"
            if self.least_trial not in (0, self.least_cohort):
                yield f"for a trial, that is {self.least_trial} devices or more{whose}"
            if self.rounds:
                yield f"it takes part in {self.rounds} rounds of one exchange at most"
            else:
                yield "it takes part in rounds of one exchange without a limit"
        if any(verb in verbs for verb in PLAIN):
            hidden = "with noise of its own" if self.least_noise or self.epsilon_a_year else "which the server can read"
            yield f"it sends its vector by itself, {hidden}"
        else:
            yield "it never sends its vector by itself"
        if self.least_noise:
            yield f"the noise has at least {self.least_noise:.3g} times the size of the largest vector"
        else:
            yield "it asks for no noise: who sees a sum sees it exactly"
        if self.epsilon_a_year:
            yield f"it spends at most epsilon {self.epsilon_a_year:g} in 365 days (delta {self.delta:g}), over all runs"
        else:
            yield "it spends epsilon without a limit"
        yield f"its vector is made by {f'the codec {self.codecs}' if self.codecs else 'any codec'}"
        yield f"up to {self.colluding:.0%} of a cohort may work together with the server"
        told = "counts in its answers to trials" if self.health else "does not tell"
        yield f"it {told} how it is: class of machine, deaths of processes, version, time per turn and peak memory"
