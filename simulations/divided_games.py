"""Held-out games divided among the processes of a simulation, in shares as in `fedoel.simulations.divided_grid`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ..codecs.codec import Codec
from ..games.player import play_episodes
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.play import GameId, Trajectory
from ..protocol.versions import Adapter
from ..server.cycle.contender import Contender
from ..server.cycle.mixture import Mixture
from ..server.events import Advance
from ..server.learner_registry import make_learner
from ..server.public.game_plan import GamePlan
from ..server.public.games import PublicGames
from ..server.public.held_out import HeldOutGames
from .divided_grid import games_of_share
from .workers import Workers, divided


@dataclass(frozen=True, slots=True, eq=False)
class HeldOutPlayer:
    """Plays shares of held-out games with a version, or with the teacher that it becomes, in any process."""

    config: RunConfig
    cache: Path
    adapter: Adapter
    codec: Codec | None
    contexts: Mixture | None

    def play(self, share: Sequence[tuple[GameId, int]]) -> list[Trajectory]:
        """Play games, each with the seed of its random stream."""
        policies = self._policies()
        drawn = [0] * len(share)
        if self.contexts is not None:
            drawn = self.contexts.draw([game for game, _ in share], [stream for _, stream in share])
        played = dict[int, Trajectory]()
        for number, policy in enumerate(policies):
            chosen = [index for index, context in enumerate(drawn) if context == number]
            games, streams = [share[index][0] for index in chosen], [share[index][1] for index in chosen]
            played |= zip(chosen, play_episodes(policy, games, streams, self.cache), strict=True)
        return [played[index] for index in range(len(share))]

    def _policies(self) -> Sequence[Policy]:
        """Return a policy for each context, with no scene cached."""
        policy = make_learner(self.config, self.cache).policy(self.adapter, measured=True)
        if self.codec is None or self.contexts is None:
            return [policy]
        return [self.codec.teacher(policy, context) for context in self.contexts.contexts]


@dataclass(frozen=True, slots=True)
class DividedHeldOutGames(HeldOutGames):
    """Plays the held-out games in the processes of a simulation."""

    config: RunConfig
    workers: Workers

    def rollouts(self, contender: Contender, games: Sequence[GameId], advance: Advance) -> list[Trajectory]:
        """Play held-out games with a contender."""
        adapter = dict(contender.adapter)  # a view of one cannot be pickled
        player = HeldOutPlayer(self.config, self.games.cache, adapter, contender.codec, contender.contexts)
        pairs = list(zip(games, self.games.plan.streams("held-out", len(games)), strict=True))
        shares = divided(pairs, games_of_share(self.config.policy))
        played = self.workers.map(player.play, shares, lambda trajectories: advance(len(trajectories)))
        return [trajectory for share in played for trajectory in share]


def divided_report(config: RunConfig, cache: Path, workers: Workers) -> DividedHeldOutGames:
    """Return what plays the held-out games of a run."""
    games = PublicGames(GamePlan.of(config), cache)
    return DividedHeldOutGames(games, config.games.held_out_teacher, config, workers)
