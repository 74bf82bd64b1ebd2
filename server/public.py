"""Playing a run's public games: rehearsal, gate and held-out, with the run's own random streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..games.player import Advance, play_episodes
from ..policies.policy import Policy
from ..protocol.play import Trajectory
from .game_plan import GameId, GamePlan


@dataclass(frozen=True, slots=True)
class PublicGames:
    """The public games of a run, ready to be played."""

    plan: GamePlan
    cache: Path

    def play(
        self, policy: Policy, games: Sequence[GameId], purpose: str, cycle: int = 0, advance: Advance = lambda n: None
    ) -> list[Trajectory]:
        """Play some of the games; policies that are compared share purpose and cycle, and so their random streams."""
        return play_episodes(policy, games, self.plan.streams(purpose, len(games), cycle), self.cache, advance)

    def play_each(
        self,
        policies: Sequence[Policy],
        chosen: Sequence[int],
        games: Sequence[GameId],
        purpose: str,
        cycle: int = 0,
        advance: Advance = lambda n: None,
    ) -> list[Trajectory]:
        """Play each of the games by the policy that was chosen for it; streams are those of `play`."""
        streams, played = self.plan.streams(purpose, len(games), cycle), dict[int, Trajectory]()
        for number, policy in enumerate(policies):
            mine = [place for place, choice in enumerate(chosen) if choice == number]
            some, seeds = [games[place] for place in mine], [streams[place] for place in mine]
            played |= zip(mine, play_episodes(policy, some, seeds, self.cache, advance), strict=True)
        return [played[place] for place in range(len(games))]
