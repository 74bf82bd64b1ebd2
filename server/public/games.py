"""Playing a run's public games (rehearsal, gate and held-out) with the run's own random streams.

What plays is one policy, or a contender: a version, or the teacher that a version becomes with contexts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...games.player import play_episodes
from ...policies.policy import Policy
from ...protocol.play import GameId, Trajectory
from ..cycle.contender import Contender
from ..cycle.mixture import Mixture
from ..events import Advance
from .game_plan import GamePlan


@dataclass(frozen=True, slots=True)
class PublicGames:
    """The public games of a run, ready to be played.

    Policies that are compared are played with the same purpose and cycle: they get the same random streams.
    """

    plan: GamePlan
    cache: Path

    def play(
        self,
        policy: Policy,
        games: Sequence[GameId],
        purpose: str,
        cycle: int = 0,
        advance: Advance = lambda finished: None,
    ) -> list[Trajectory]:
        """Play games with one policy."""
        return play_episodes(policy, games, self.plan.streams(purpose, len(games), cycle), self.cache, advance)

    def play_mixture(
        self,
        policies: Sequence[Policy],
        contexts: Mixture,
        games: Sequence[GameId],
        purpose: str,
        cycle: int = 0,
        advance: Advance = lambda finished: None,
    ) -> tuple[list[Trajectory], list[int]]:
        """Play each game with the policy whose context is drawn for it; also return the index of that context."""
        streams = self.plan.streams(purpose, len(games), cycle)
        drawn, trajectories = contexts.draw(games, streams), dict[int, Trajectory]()
        for context, policy in enumerate(policies):
            chosen = [index for index, other in enumerate(drawn) if other == context]
            seeds = [streams[index] for index in chosen]
            played = play_episodes(policy, [games[index] for index in chosen], seeds, self.cache, advance)
            trajectories |= zip(chosen, played, strict=True)
        return [trajectories[index] for index in range(len(games))], drawn

    def rollouts(
        self, contender: Contender, games: Sequence[GameId], purpose: str, advance: Advance
    ) -> list[Trajectory]:
        """Play games with a contender."""
        if contender.contexts is None:
            return self.play(contender.policies[0], games, purpose, advance=advance)
        return self.play_mixture(contender.policies, contender.contexts, games, purpose, advance=advance)[0]
