"""The gate: distil only a context that helps, promote only a candidate that does not lose.

Both decisions compare two policies on the same games with the same random streams, episode by episode. What is compared
is the *merit* of an episode: the score it reached, plus one for a win, minus one for a loss. A decision needs no more
than the number, the sum and the sum of squares of the differences in each family: `Differences`.

Evidence comes in blocks: of public games that the server plays (`fedoel.server.public.gate`), or of games that a part
of the fleet plays (`fedoel.server.fleet_gate`). While the evidence could still be chance, there is another block, up to
a bound; only then is the context or the candidate refused. A wrong pass costs little, because a candidate is judged
again without the context, and a wrong refusal costs what the cycle has learned.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..codecs.encoder import Parameters
from ..protocol.play import Trajectory, merit
from ..protocol.records.summary import Stats
from ..strategies.server_side import AskFleet
from .cycle.contender import Contender, Version
from .evaluation import combined
from .events import Advance

# Standard errors that a fall may have and still count as noise. One of three families falls by more than one of them
# in two cases out of five although nothing has changed, so a single family has to fall by more.
NOISE, NOISE_IN_A_FAMILY = 1.0, 2.0
HOPELESS = 2.0  # standard errors below zero at which there is no further block
NUMBERS = ("variance", "devices", "fallbacks")  # fields of `Differences` that are single numbers
HEALTH = "health"
OPTIONAL = ("wins", HEALTH)  # fields that are arrays, or None
POWER = 1.28  # standard errors: a gain of this size is above zero in nine trials of ten


@dataclass(frozen=True, slots=True, eq=False)
class Differences:
    """Differences in merit between a contender and the current version; every array has shape (families,).

    Parameters
    ----------
    families
        Their names.
    episodes, total, squares
        Number of pairs of episodes, and sums of their differences and of the squared differences.
    wins
        Games won by the current version and by the contender, shape (2, families); None where nobody says so.
    variance
        Variance of the noise in the sum over all families of `total`; 0 without noise.
    devices, fallbacks
        Devices that the sums come from, and how many of them have gone back from the current version to the one before.
    health
        Counts of how these devices are, see `fedoel.protocol.health`; None where they were not asked.
    """

    families: tuple[str, ...]
    episodes: NDArray[np.float64]
    total: NDArray[np.float64]
    squares: NDArray[np.float64]
    wins: NDArray[np.float64] | None = None
    variance: float = 0.0
    devices: float = 0.0
    fallbacks: float = 0.0
    health: NDArray[np.float64] | None = None

    def mean(self, family: int | None = None) -> float:
        """Mean difference, in one family or in all."""
        episodes, total, _ = self._sums(family)
        return total / episodes if episodes else 0.0

    def error(self, family: int | None = None) -> float:
        """Standard error of that mean; the noise of a single family is taken to be that of the sum."""
        episodes, total, squares = self._sums(family)
        if episodes < 2:
            return 0.0 if not self.variance else math.inf
        spread = max(0.0, squares - total**2 / episodes) / (episodes - 1)
        return math.sqrt(spread / episodes + self.variance / episodes**2)

    def against(self, current: Sample) -> Differences:
        """Return these differences, which know the current version already."""
        return self

    def plus(self, other: Sample) -> Differences:
        """Return the differences of both, of the same families."""
        if not isinstance(other, Differences):
            raise TypeError("differences can only be added to differences")
        wins, health = (_both(getattr(self, name), getattr(other, name)) for name in OPTIONAL)
        return Differences(
            self.families, self.episodes + other.episodes, self.total + other.total, self.squares + other.squares,
            wins, self.variance + other.variance, self.devices + other.devices, self.fallbacks + other.fallbacks,
            health,
        )  # fmt: skip

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `sample_of` reads."""
        optional = {name: getattr(self, name) for name in OPTIONAL if getattr(self, name) is not None}
        sums = {"episodes": self.episodes, "total": self.total, "squares": self.squares}
        names = np.array(self.families, dtype=np.str_)
        return {"families": names, **sums, **optional, **{name: np.array(getattr(self, name)) for name in NUMBERS}}

    def _sums(self, family: int | None) -> tuple[float, float, float]:
        arrays = self.episodes, self.total, self.squares
        episodes, total, squares = (float(a.sum() if family is None else a[family]) for a in arrays)
        return episodes, total, squares


def _both(one: NDArray[np.float64] | None, other: NDArray[np.float64] | None) -> NDArray[np.float64] | None:
    return None if one is None or other is None else one + other


class Sample(Protocol):
    """What a gate has seen of a contender: `Trial` or `Differences`."""

    def against(self, current: Sample) -> Differences:
        """Compare with the sample of the current version."""

    def plus(self, other: Sample) -> Sample:
        """Return both samples as one."""

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `sample_of` reads."""


@dataclass(frozen=True, slots=True)
class Trial:
    """How a policy did, episode by episode; every array has shape (episodes,)."""

    merits: NDArray[np.float64]
    won: NDArray[np.bool_]
    families: NDArray[np.str_]

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory], refusal: float = 0.0) -> Trial:
        """Take what the gate looks at from some episodes; `refusal` as in `fedoel.protocol.play.merit`."""
        return cls(
            np.array([merit(t, refusal) for t in trajectories], dtype=np.float64),
            np.array([t.won for t in trajectories], dtype=bool),
            np.array([t.spec.family for t in trajectories]),
        )

    def against(self, current: Sample) -> Differences:
        """Compare with the first episodes of the current version, which are the same games."""
        if not isinstance(current, Trial):
            raise TypeError("episodes can only be compared with episodes")
        number = len(self.merits)
        differences, families = self.merits - current.merits[:number], tuple(dict.fromkeys(self.families.tolist()))
        members = np.array([self.families == name for name in families], dtype=np.float64)
        wins = np.stack([members @ current.won[:number], members @ self.won])
        return Differences(families, members.sum(axis=1), members @ differences, members @ differences**2, wins)

    def plus(self, other: Sample) -> Trial:
        """Return the episodes of both."""
        if not isinstance(other, Trial):
            raise TypeError("episodes can only be added to episodes")
        return Trial(*(np.concatenate([getattr(t, f.name) for t in (self, other)]) for f in fields(Trial)))

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return what `sample_of` reads."""
        return asdict(self)


def sample_of(arrays: Mapping[str, NDArray[Any]]) -> Sample:
    """Read a sample."""
    if "merits" in arrays:
        return Trial(**arrays)
    families, sums = tuple(arrays["families"].tolist()), (arrays["episodes"], arrays["total"], arrays["squares"])
    variance, devices, fallbacks = (float(arrays.get(name, 0.0)) for name in NUMBERS)  # older files have the first only
    wins, health = map(arrays.get, OPTIONAL)
    return Differences(families, *sums, wins, variance, devices, fallbacks, health)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate has seen of a policy, the results that the summary reports, and how many blocks they come from."""

    sample: Sample
    stats: Stats
    blocks: int = 1

    def with_block(self, other: Evidence) -> Evidence:
        """Return the evidence of both."""
        stats = combined([self.stats, other.stats])
        return Evidence(self.sample.plus(other.sample), stats, self.blocks + other.blocks)


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to go on, and why.

    Parameters
    ----------
    sure
        False if another block could change it.
    paused
        Whether nothing else would pass either, so that it need not be tried.
    """

    passed: bool
    reason: str
    sure: bool = True
    paused: bool = False


class Gate(Protocol):
    """Decides what becomes of a context and of a candidate; where its evidence comes from is its own matter."""

    @property
    def episodes(self) -> int:
        """How many episodes a block takes, to show progress by."""

    @property
    def blocks(self) -> int:
        """How many blocks there are."""

    def with_fleet(self, ask: AskFleet, parameters: Parameters) -> Gate:
        """Return the gate for one cycle, in which it may ask the fleet; `parameters` are those of the codec."""

    def evidence(self, cycle: int, current: Version, contender: Contender, block: int, advance: Advance) -> Evidence:
        """Try a contender on one block, numbered from 1; of the current version itself where it is the contender."""

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        """Whether a context is worth distilling, given how the version does with it and without it."""

    def candidate_holds(self, differences: Differences) -> Verdict:
        """Whether a candidate may replace the current version."""


@dataclass(frozen=True, slots=True)
class Decisions:
    """Both decisions as every gate here makes them."""

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        """Whether the context raises the mean merit at all; by more than noise, if it is the best of several.

        Parameters
        ----------
        choices
            Names of the contexts that the same games have chosen from, the chosen one first.
        """
        gain, error = differences.mean(), differences.error()
        luck = NOISE * error if len(choices) > 1 else 0.0
        chosen = f" ({choices[0]}, the best of {len(choices)})" if choices else ""
        games = round(float(differences.episodes.sum()))
        # Without an error all games went as before or by the same difference, and say nothing about chance.
        seen = f"; {games} games see a gain of {luck + POWER * error:.2f} nine times out of ten" if error else ""
        reason = f"with the context{chosen} {_wins(differences)}merit {gain:+.3f}{seen}"
        return Verdict(gain > luck, reason, sure=gain > luck or gain < -HOPELESS * error)

    def candidate_holds(self, differences: Differences) -> Verdict:
        """Whether the candidate is not worse than the current version, overall or in any family, beyond noise."""
        wins = f"without the context {_wins(differences)}"
        for family, name in ((None, ""), *enumerate(differences.families)):
            gain, error = differences.mean(family), differences.error(family)
            if gain < -(NOISE_IN_A_FAMILY if name else NOISE) * error:
                where, hopeless = f" in {name}" if name else "", 2 * HOPELESS if name else HOPELESS
                return Verdict(False, f"{wins}but merit {gain:+.3f}{where}", sure=gain < -hopeless * error)
        return Verdict(True, f"{wins}merit {differences.mean():+.3f}")


def _wins(differences: Differences) -> str:
    """Say the wins of both, where they are known."""
    if differences.wins is None or not differences.episodes.any():
        return ""
    before, after = differences.wins.sum(axis=1) / differences.episodes.sum()
    games = "devices' games" if differences.devices else "gate's games"
    return f"{before:.0%} -> {after:.0%} of the {games} are won, "
