"""Trials: what a device says of a candidate that it has played against the current version, on the same games.

The answer to a trial is an `ExperienceVector` like any other, so that it is clipped, noised and summed in the same way.
Its gradient has a block of entries for each family of games; entries are shares of the largest value that a device can
send, so that the clipping norm bounds what one device can do:

    sum of d / (T B),  WEIGHT sum of d^2 / (T B^2),  WEIGHT episodes / T,  wins / T of either policy

and after all blocks one more entry: WEIGHT if the device has gone back from the current version to the one before.
T is the number of games that a device plays for a trial, and d the difference in merit of an episode, clipped to B. In
a run with noise there is one block of the first two entries for all families together: the sum decides and has most of
the norm, hence the least noise, and which families a device plays is not told.

Where the run asks for health, HEALTH_WEIGHT times the counts of `fedoel.protocol.health` follow. They are zeros from a
device whose owner does not tell its health: all answers to a request are of one length.
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
from .health import CELLS, MOST, SHAPE, Health
from .play import Trajectory, merit

ACTION = "evaluate.trial"
CODEC = "trial"
DETAILED, NOISY = 5, 2  # entries of a block
SMALLEST = 4  # devices of a part of a trial: fewer hide nobody in a sum
WEIGHT = 0.25  # of the number of episodes, of the sum of squares, and of whether the device has gone back
HEALTH_WEIGHT = 0.125  # of each count of its health: all of them together add 3 % to the noise of a private run
HEALTH = "health"  # the last word of the terms of a trial that asks for it
SLACK = 0.01  # of what one device can send: how far half precision or the rounding of a secure sum can move an entry


@dataclass(frozen=True, slots=True)
class TrialTerms:
    """What a trial asks for.

    Parameters
    ----------
    games
        Games that a device plays twice: once with each of the two policies.
    clip
        Bound of a difference in merit.
    detailed
        Whether each family is told by itself, with the number of its games and wins.
    candidate
        Name of the version that is tried; empty if a context is.
    health
        Whether devices say how they are, too.
    """

    games: int
    clip: float
    detailed: bool
    candidate: str = ""
    health: bool = False

    @classmethod
    def of_run(cls, config: RunConfig, candidate: str = "") -> TrialTerms:
        """Return what a run's trials ask for."""
        trial = config.trial
        return cls(trial.games, trial.clip, config.privacy.mechanism == "none", candidate, trial.health)

    def spec(self, version: str, families: tuple[str, ...]) -> VectorSpec:
        """Return the specification of the answer to a trial of something against a version."""
        words = f"{self.games} {self.clip!r} {int(self.detailed)} {self.candidate}{f' {HEALTH}' * self.health}"
        dimension = self.entries(families) + 1 + CELLS * self.health
        squares = 1 + 2 * WEIGHT**2 + self.detailed * (WEIGHT**2 + 2) + self.health * MOST * HEALTH_WEIGHT**2
        norm = math.sqrt(squares)
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
            games, clip, detailed, candidate, *more = spec.vocabulary.split(" ")
            terms = cls(int(games), float(clip), detailed == "1", candidate, more == [HEALTH])
            if terms.games < 1 or not 0 < terms.clip < math.inf:
                raise ValueError("out of range")
            if terms.spec(spec.policy_version, spec.families) != spec:
                raise ValueError("another specification")
        except ValueError as error:
            raise VectorError(f"{spec.vocabulary!r} are not the terms of a trial") from error
        return terms

    def entries(self, families: Sequence[str]) -> int:
        """Return the number of entries of all blocks."""
        return DETAILED * len(families) if self.detailed else NOISY

    @property
    def units(self) -> Floats:
        """What the entries of a block are divided by, shape (entries,)."""
        units = [self.games * self.clip, self.games * self.clip**2 / WEIGHT]
        return np.array([*units, *[self.games / WEIGHT, self.games, self.games] * self.detailed], dtype=np.float64)


def is_trial(spec: VectorSpec) -> bool:
    """Whether a request with this specification is a trial."""
    return spec.codec == CODEC


def trial_vector(
    spec: VectorSpec,
    families: Sequence[str],
    merits: NDArray[np.float64],
    won: NDArray[np.bool_],
    fallen_back: bool = False,
    health: Health | None = None,
) -> ExperienceVector:
    """Return a device's answer.

    Parameters
    ----------
    families
        Family of each game.
    merits, won
        Merit of each game and whether it was won, by the current version and by what is tried; shape (2, games).
    fallen_back
        Whether the device has gone back from the current version to the one before.
    health
        How the device is; None if it does not tell.
    """
    terms = TrialTerms.of(spec)
    clipped = np.clip(merits[1] - merits[0], -terms.clip, terms.clip)
    columns = [clipped, clipped**2, *([np.ones(len(families)), *won.astype(np.float64)] if terms.detailed else [])]
    names = np.array(families)
    blocks = [names == name for name in spec.families] if terms.detailed else [np.ones(len(names))]
    entries = np.stack(blocks).astype(np.float64) @ np.stack(columns, axis=1) / terms.units
    zeros = np.zeros(spec.dimension, np.float32)
    counters = Counters(np.zeros(spec.counters_shape, np.float32))
    counts = [HEALTH_WEIGHT * (health.counts() if health else np.zeros(SHAPE))] if terms.health else []
    parts = entries, np.array(WEIGHT * fallen_back), *counts
    gradient = np.concatenate([part.ravel() for part in parts]).astype(np.float32)
    return ExperienceVector(spec, gradient, zeros, counters)


def answer_of(
    spec: VectorSpec,
    before: Sequence[Trajectory],
    after: Sequence[Trajectory],
    fallen_back: bool = False,
    health: Health | None = None,
    refusal: float = 0.0,
) -> ExperienceVector:
    """Return a device's answer from what it has played with the current version and with what is tried.

    Parameters
    ----------
    before, after
        The same games in the same order.
    fallen_back, health
        As in `trial_vector`.
    refusal
        As in `fedoel.protocol.play.merit`.
    """
    both = before, after
    merits = np.array([[merit(trajectory, refusal) for trajectory in played] for played in both], dtype=np.float64)
    won = np.array([[trajectory.won for trajectory in played] for played in both])
    return trial_vector(spec, [trajectory.spec.family for trajectory in before], merits, won, fallen_back, health)


def sums_of(vector: ExperienceVector) -> Floats:
    """Return a sum of answers in its own units, shape (families, 5), or (1, 2) in a run with noise."""
    terms = TrialTerms.of(vector.spec)
    entries = vector.gradient[: terms.entries(vector.spec.families)].astype(np.float64)
    return entries.reshape(-1, len(terms.units)) * terms.units


def fallbacks_of(vector: ExperienceVector) -> float:
    """Return how many devices of a sum of answers have gone back from the current version to the one before."""
    return float(vector.gradient[TrialTerms.of(vector.spec).entries(vector.spec.families)]) / WEIGHT


def health_of(vector: ExperienceVector) -> Floats | None:
    """Return the counts of the devices' health in a sum of answers, shape `SHAPE`; None if it was not asked for."""
    if not TrialTerms.of(vector.spec).health:
        return None
    return vector.gradient[-CELLS:].astype(np.float64).reshape(SHAPE) / HEALTH_WEIGHT


def is_possible(vector: ExperienceVector, devices: int = 1) -> bool:
    """Whether so many honest devices can have sent this sum of answers, without noise.

    Clipping bounds the whole answer only. Without this check a lie in one entry changes what the others mean: a
    negative number of games turns a loss into a gain, and a device can say many times that it has gone back.

    Parameters
    ----------
    vector
        The sum, or a single answer, exact to `SLACK` of what a device can send.
    devices
        Number of answers in it.
    """
    terms, slack = TrialTerms.of(vector.spec), SLACK * devices
    entries = vector.gradient[: terms.entries(vector.spec.families)].astype(np.float64)
    rows = entries.reshape(-1, len(terms.units)) / [1, WEIGHT, *[WEIGHT, 1, 1] * terms.detailed]
    gains, squares, *more = rows.T  # shares of what a device can send
    games, *wins = more or [np.full(1, float(devices))]
    counts = np.array(fallbacks_of(vector)), health_of(vector)
    return bool(
        all((-slack <= part).all() and (part <= games + slack).all() for part in (games, squares, *wins))
        and games.sum() <= devices + slack
        and (gains**2 <= (squares + slack) * (games + slack)).all()  # Cauchy and Schwarz
        and all((-slack <= count).all() and (count <= devices + slack).all() for count in counts if count is not None)
    )


def parts_of_trial(config: RunConfig) -> int:
    """Return in how many parts, one after the other, the fleet is asked for a trial: none of less than `SMALLEST`."""
    cohort = int((config.privacy.population or config.clients) * config.strategy.fraction_train)
    return max(1, min(round(1 / config.trial.share), cohort // SMALLEST))


def most_trials(config: RunConfig) -> int:
    """Return the most requests for trials in a cycle; none where the server has games."""
    if config.server.public == "games":
        return 0
    parts = parts_of_trial(config)
    of_candidates = parts * (1 + config.distil.halvings)
    return of_candidates + (parts + config.context.halvings if config.trial.contexts else 0)
