"""The gate: distil only a context that helps, promote only a candidate that does not lose.

Both decisions compare two policies on the same games with the same random streams, episode by episode. What is compared
is the *merit* of an episode: the score it reached, plus one for a win, minus one for a loss.

Games come in blocks. While the evidence could still be chance, both policies play another block, up to a bound; only
then is the context or the candidate refused. A wrong pass costs little, because a candidate is judged again without the
context, and a wrong refusal costs what the cycle has learned.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ..games.player import Advance
from ..games.prepare import prepare
from ..protocol.play import Trajectory
from ..protocol.records.summary import Stats
from .cycle.public_games import Contender, PublicGames
from .evaluation import combined, summarise

# Standard errors that a fall may have and still count as noise. One of three families falls by more than one of them
# in two cases out of five although nothing has changed, so a single family has to fall by more.
NOISE, NOISE_IN_A_FAMILY = 1.0, 2.0
HOPELESS = 2.0  # standard errors below zero at which no further block is played
POWER = 1.28  # standard errors: a gain of this size is above zero in nine trials of ten


@dataclass(frozen=True, slots=True)
class Trial:
    """How a policy did on the gate's games; every array has shape (episodes,)."""

    merits: NDArray[np.float64]
    won: NDArray[np.bool_]
    families: NDArray[np.str_]

    @classmethod
    def of(cls, trajectories: Sequence[Trajectory]) -> Trial:
        """Take what the gate looks at from some episodes."""
        return cls(
            np.array([t.score + float(t.won) - float(t.lost) for t in trajectories], dtype=np.float64),
            np.array([t.won for t in trajectories], dtype=bool),
            np.array([t.spec.family for t in trajectories]),
        )

    def first(self, episodes: int) -> Trial:
        """Return the first episodes alone."""
        return Trial(self.merits[:episodes], self.won[:episodes], self.families[:episodes])


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether to go on, and why; `sure` is false if another block of games could change it."""

    passed: bool
    reason: str
    sure: bool = True


@dataclass(frozen=True, slots=True)
class Evidence:
    """What a gate has seen of a policy: merits episode by episode, and the results that the summary reports.

    `blocks` counts the blocks of games that it comes from.
    """

    trial: Trial
    stats: Stats
    blocks: int = 1

    def with_block(self, other: Evidence) -> Evidence:
        """Return the evidence of both."""
        trials = self.trial, other.trial
        joined = Trial(*(np.concatenate([getattr(t, f.name) for t in trials]) for f in fields(Trial)))
        return Evidence(joined, combined([self.stats, other.stats]), self.blocks + other.blocks)


class Gate(Protocol):
    """Decides what becomes of a context and of a candidate; where its evidence comes from is its own matter."""

    @property
    def episodes(self) -> int:
        """How many episodes a block takes, to show progress by."""

    @property
    def blocks(self) -> int:
        """How many blocks there are."""

    def evidence(self, contender: Contender, block: int, advance: Advance) -> Evidence:
        """Try a policy on one block, numbered from 1."""

    def context_helps(self, current: Trial, teacher: Trial, choices: Sequence[str] = ()) -> Verdict:
        """Whether a context is worth distilling, given the version without and with it."""

    def candidate_holds(self, current: Trial, candidate: Trial) -> Verdict:
        """Whether a candidate may replace the current version."""


@dataclass(frozen=True, slots=True)
class PublicGate:
    """The gate of a server that has games: it plays public ones that nobody learns from."""

    public: PublicGames

    @property
    def episodes(self) -> int:
        """One of each game of a block."""
        return len(self.public.plan.gate[0])

    @property
    def blocks(self) -> int:
        """As many as the run's configuration says."""
        return len(self.public.plan.gate)

    def evidence(self, contender: Contender, block: int, advance: Advance) -> Evidence:
        """Play a block of the gate's games."""
        games = self.public.plan.gate[block - 1]
        if block > 1:  # the first block was prepared with the run's other games
            prepare(games, self.public.cache)
        played = self.public.rollouts(contender, games, "gate" if block == 1 else f"gate-{block}", advance)
        return Evidence(Trial.of(played), summarise(played))

    def context_helps(self, current: Trial, teacher: Trial, choices: Sequence[str] = ()) -> Verdict:
        """Whether the context raises the mean merit at all; by more than noise, if it is the best of several.

        Parameters
        ----------
        choices
            Names of the contexts that the same games have chosen from, the chosen one first.
        """
        difference = teacher.merits - current.merits
        gain, error = float(difference.mean()), _standard_error(difference)
        luck = NOISE * error if len(choices) > 1 else 0.0
        chosen = f" ({choices[0]}, the best of {len(choices)})" if choices else ""
        seen = f"; {len(difference)} games see a gain of {luck + POWER * error:.2f} nine times out of ten"
        reason = f"with the context{chosen} {_wins(current, teacher)}, merit {gain:+.3f}{seen}"
        return Verdict(gain > luck, reason, sure=gain > luck or gain < -HOPELESS * error)

    def candidate_holds(self, current: Trial, candidate: Trial) -> Verdict:
        """Whether the candidate is not worse than the current version, overall or in any family, beyond noise."""
        difference = candidate.merits - current.merits
        wins = f"without the context {_wins(current, candidate)}"
        for name in ("", *dict.fromkeys(current.families.tolist())):
            part = difference[current.families == name] if name else difference
            if part.mean() < -(NOISE_IN_A_FAMILY if name else NOISE) * _standard_error(part):
                where, hopeless = f" in {name}" if name else "", 2 * HOPELESS if name else HOPELESS
                sure = part.mean() < -hopeless * _standard_error(part)
                return Verdict(False, f"{wins}, but merit {part.mean():+.3f}{where}", sure)
        return Verdict(True, f"{wins}, merit {difference.mean():+.3f}")


def _wins(before: Trial, after: Trial) -> str:
    return f"{before.won.mean():.0%} -> {after.won.mean():.0%} of the gate's games are won"


def _standard_error(values: NDArray[np.float64]) -> float:
    return float(values.std(ddof=1)) / math.sqrt(len(values)) if len(values) > 1 else 0.0
