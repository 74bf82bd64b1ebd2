"""Trials: what a device says of a candidate that it has played against the current version, on the same games.

The answer to a trial is an `ExperienceVector` like any other, so that it is clipped, noised and summed in the same way.
Its gradient has a block of entries for each family of games; entries are shares of the largest value that a device can
send, so that the clipping norm bounds what one device can do:

    WEIGHT episodes / T,  sum of d / (T B),  WEIGHT sum of d^2 / (T B^2)

T is the number of games that a device plays for a trial, and d the difference in merit of an episode, clipped to B. The
sum decides, so that it has most of the norm, and hence the least noise. A run without noise adds two entries: wins / T
of the current version and of what is tried.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .config import RunConfig
from .errors import VectorError
from .experience import Counters, ExperienceVector, Floats, VectorSpec

ACTION = "evaluate.trial"
CODEC = "trial"
SUMS, WINS = 3, 2  # entries of a family: sums of differences, and wins
WEIGHT = 0.25  # of the number of episodes and of the sum of squares


@dataclass(frozen=True, slots=True)
class TrialTerms:
    """What a trial asks for.

    Parameters
    ----------
    games
        Games that a device plays twice: once with each of the two policies.
    clip
        Bound of a difference in merit.
    wins
        Whether wins are told, too.
    candidate
        Name of the version that is tried; empty if a context is.
    """

    games: int
    clip: float
    wins: bool
    candidate: str = ""

    @property
    def entries(self) -> int:
        """Entries of a family."""
        return SUMS + WINS * self.wins

    def spec(self, version: str, families: tuple[str, ...]) -> VectorSpec:
        """Return the specification of the answer to a trial of something against a version."""
        words, dimension = f"{self.games} {self.clip!r} {int(self.wins)} {self.candidate}", self.entries * len(families)
        norm = math.sqrt(1 + 2 * WEIGHT**2 + WINS * self.wins)
        return VectorSpec(CODEC, dimension, words, version, families, 1, norm, 1.0)

    @classmethod
    def of(cls, spec: VectorSpec) -> TrialTerms:
        """Read a specification.

        Raises
        ------
        VectorError
            If it is not one of a trial.
        """
        try:
            games, clip, wins, candidate = spec.vocabulary.split(" ")
            terms = cls(int(games), float(clip), wins == "1", candidate)
            if terms.games < 1 or not 0 < terms.clip < math.inf:
                raise ValueError("out of range")
            if terms.spec(spec.policy_version, spec.families) != spec:
                raise ValueError("another specification")
        except ValueError as error:
            raise VectorError(f"{spec.vocabulary!r} are not the terms of a trial") from error
        return terms

    @property
    def largest(self) -> Floats:
        """What a family's entries are divided by, shape (entries,)."""
        sums = [self.games / WEIGHT, self.games * self.clip, self.games * self.clip**2 / WEIGHT]
        return np.array([*sums, *[self.games] * (WINS * self.wins)], dtype=np.float64)


def is_trial(spec: VectorSpec) -> bool:
    """Whether a request with this specification is a trial."""
    return spec.codec == CODEC


def trial_vector(
    spec: VectorSpec, families: Sequence[str], merits: NDArray[np.float64], won: NDArray[np.bool_]
) -> ExperienceVector:
    """Return a device's answer.

    Parameters
    ----------
    families
        Family of each game.
    merits, won
        Merit of each game and whether it was won, by the current version and by what is tried; shape (2, games).
    """
    terms = TrialTerms.of(spec)
    clipped = np.clip(merits[1] - merits[0], -terms.clip, terms.clip)
    columns = [np.ones(len(families)), clipped, clipped**2, *(won.astype(np.float64) if terms.wins else ())]
    members = np.array([[family == name for family in families] for name in spec.families], dtype=np.float64)
    entries = members @ np.stack(columns, axis=1) / terms.largest
    zeros = np.zeros(spec.dimension, np.float32)
    counters = Counters(np.zeros(spec.counters_shape, np.float32))
    return ExperienceVector(spec, entries.ravel().astype(np.float32), zeros, counters)


def sums_of(vector: ExperienceVector) -> Floats:
    """Return the entries of a sum of answers in their own units, shape (families, entries)."""
    terms = TrialTerms.of(vector.spec)
    return vector.gradient.astype(np.float64).reshape(-1, terms.entries) * terms.largest


def parts_of_trial(config: RunConfig) -> int:
    """Return in how many parts, one after the other, the fleet is asked for a trial."""
    return max(1, round(1 / config.trial.share))


def most_trials(config: RunConfig) -> int:
    """Return the most requests for trials in a cycle; none where the server has games."""
    if config.server.public == "games":
        return 0
    parts = parts_of_trial(config)
    return parts + (parts + config.context.halvings if config.trial.contexts else 0)
