"""Fallback: how well a device did with its last two versions, and whether the last one is clearly worse for it.

For each version a device keeps the number of the episodes that it played for experience without a context, and the sum
of their merits. Mean merits are compared by confidence sequences, which hold at all times at once, so that a device may
look after every request: the two-sided normal mixture for sub-Gaussian observations (Robbins 1970; Howard et al. 2021,
arXiv 1810.08240). A merit lies in [-1, 2], hence it is sub-Gaussian with half of that range as its scale (Hoeffding).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

LOWEST, HIGHEST = -1.0, 2.0  # merit of an episode
SCALE = (HIGHEST - LOWEST) / 2
RHO = 10.0  # of the mixture: its confidence sequence is tightest after about 130 episodes
ALPHA = 0.01


@dataclass(frozen=True, slots=True)
class Results:
    """What a device has seen of one version.

    Parameters
    ----------
    version
        Its name.
    cycle
        The last cycle whose episodes are counted; a repeated request brings the same episodes again.
    games, merit
        Number of episodes, and the sum of their merits.
    """

    version: str
    cycle: int = 0
    games: int = 0
    merit: float = 0.0

    @property
    def mean(self) -> float:
        return self.merit / self.games if self.games else 0.0

    def plus(self, cycle: int, merits: Iterable[float]) -> Results:
        """Return the results with the episodes of a cycle, unless they are counted already."""
        if self.games and cycle == self.cycle:
            return self
        clipped = [min(max(merit, LOWEST), HIGHEST) for merit in merits]
        return replace(self, cycle=cycle, games=self.games + len(clipped), merit=math.fsum([self.merit, *clipped]))


def radius(games: int, alpha: float) -> float:
    """Return half of the width of the confidence sequence of a mean merit; infinite without games.

    The mean of the first n merits is within it of the expected merit for every n at once, but for a chance of `alpha`.
    """
    if not games:
        return math.inf
    return SCALE / games * math.sqrt((games + RHO) * math.log((games + RHO) / (RHO * alpha**2)))


def clearly_worse(before: Results, after: Results, alpha: float = ALPHA) -> bool:
    """Whether a version does worse than another: the confidence sequences of their mean merits do not overlap.

    Each of them holds with probability 1 - alpha / 2. A version that is not worse is taken for worse with probability
    `alpha` at most, however often this is asked.
    """
    low, high = before.mean - radius(before.games, alpha / 2), after.mean + radius(after.games, alpha / 2)
    return low > high


@dataclass(frozen=True, slots=True)
class Success:
    """Results of a device's last version and, before it, of the version that it would go back to.

    Parameters
    ----------
    versions
        Two at most, the last version at the end.
    """

    versions: tuple[Results, ...] = ()

    @property
    def fallen_back(self) -> bool:
        """Whether the last version is clearly worse than the one before."""
        return len(self.versions) == 2 and clearly_worse(*self.versions)

    @property
    def kept(self) -> str:
        """The version that the device goes on with; empty if it has played none."""
        return self.versions[0 if self.fallen_back else -1].version if self.versions else ""

    def fell_back_from(self, version: str) -> bool:
        """Whether this is the last version, and the device has gone back from it."""
        return self.fallen_back and self.versions[-1].version == version

    def plus(self, version: str, cycle: int, merits: Iterable[float]) -> Success:
        """Return the results with the episodes that a version has played in a cycle.

        A new version is compared with the last one, or, if that is clearly worse, with the one before it.
        """
        known = next((one for one in self.versions if one.version == version), Results(version))
        earlier = self.versions
        if earlier and earlier[-1].version != version and self.fallen_back:
            earlier = earlier[:-1]
        earlier = tuple(one for one in earlier if one.version != version)
        return Success((*earlier[-1:], known.plus(cycle, merits)))

    def to_values(self) -> dict[str, Any]:
        """Write what `from_values` reads: a list for each field, for a record of Flower or for JSON."""
        return {name: [getattr(one, name) for one in self.versions] for name in Results.__dataclass_fields__}

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Success:
        """Read results; none if they are damaged."""
        try:
            columns = values["version"], values["cycle"], values["games"], values["merit"]
            versions = tuple(
                Results(str(version), int(cycle), int(games), float(merit))
                for version, cycle, games, merit in zip(*columns, strict=True)
            )
        except (KeyError, TypeError, ValueError, OverflowError):
            return cls()
        sound = all(LOWEST * one.games <= one.merit <= HIGHEST * one.games for one in versions)  # not so for NaN
        return cls(versions) if sound and len(versions) <= 2 else cls()
