"""What is reported where games can be played: floors, and how versions and teachers do on held-out games."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from ...games.families import unrenamed
from ...games.heuristics import HEURISTICS, uniform
from ...games.prepare import prepare
from ...games.scripted import play_scripted, play_walkthrough
from ...protocol.play import GameId, Trajectory
from ...protocol.records.summary import Floor, Floors, Measures, Results
from ..cycle.contender import Contender
from ..evaluation import by_family, summarise
from ..events import Advance
from ..gate import Evidence
from ..summary import results_of
from .games import PublicGames

RANDOM_REPEATS = 3
EXAMPLES = 8  # held-out games of which one is shown turn by turn


@dataclass(frozen=True, slots=True)
class HeldOutGames:
    """Plays the held-out games; implements `fedoel.server.cycle.run.Report`.

    Parameters
    ----------
    for_teacher
        How many of them a teacher plays; 0 for all.
    """

    games: PublicGames
    for_teacher: int

    @property
    def episodes(self) -> int:
        """All games that are measured."""
        return len(self.games.plan.measured)

    @property
    def teacher_episodes(self) -> int:
        """Those that a teacher plays."""
        return len(self._teacher_games)

    @property
    def _teacher_games(self) -> Sequence[GameId]:
        return self.games.plan.held_out[: self.for_teacher or None]

    def floors(self, advance: Advance) -> Floors:
        """Play the measured games at random, by rules and by walkthrough."""
        prepare(self.games.plan.measured, self.games.cache)
        played = self._play_floors(self.games.plan.held_out, advance)
        transfer = {name: self._play_floors(games, advance) for name, games in self.games.plan.transfer.items()}
        return Floors(**{
            name: Floor(
                **asdict(summarise(trajectories)), families=by_family(trajectories),
                transfer={game: summarise(some[name]) for game, some in transfer.items()},
            )
            for name, trajectories in played.items()
        })  # fmt: skip

    def measures(self, contender: Contender, evidence: Evidence | None, advance: Advance) -> Measures:
        """Play the measured games."""
        held_out = results_of(self.rollouts(contender, self.games.plan.held_out, advance))
        transfer = {
            name: summarise(self.rollouts(contender, games, advance))
            for name, games in self.games.plan.transfer.items()
        }
        return Measures(held_out=held_out, transfer=transfer)

    def teacher(self, contender: Contender, evidence: Evidence, advance: Advance) -> Results:
        """Play the teacher's share of the held-out games."""
        return results_of(self.rollouts(contender, self._teacher_games, advance))

    def example(self, contender: Contender) -> Trajectory:
        """Play the game with the longest solution of the first held-out ones: no result of any version chooses it."""
        games = self.games.plan.held_out[:EXAMPLES]
        lengths = [len(play_walkthrough(unrenamed(spec), seed, self.games.cache).turns) for spec, seed in games]
        longest = games[lengths.index(max(lengths))]
        return self.rollouts(contender, [longest], lambda finished: None)[0]

    def rollouts(self, contender: Contender, games: Sequence[GameId], advance: Advance) -> list[Trajectory]:
        """Play held-out games with a contender."""
        return self.games.rollouts(contender, games, "held-out", advance)

    def _play_floors(self, games: Sequence[GameId], advance: Advance) -> dict[str, list[Trajectory]]:
        """Play every game at random, several times to reduce variance, by the family's heuristic, and by walkthrough.

        Renamed games are played with their original words, which changes nothing for these policies.
        """
        played: dict[str, list[Trajectory]] = {"random": [], "heuristic": [], "walkthrough": []}
        streams, cache = self.games.plan.streams("held-out", len(games)), self.games.cache
        for (spec, seed), stream in zip([(unrenamed(spec), seed) for spec, seed in games], streams, strict=True):
            for repeat in range(RANDOM_REPEATS):
                rng = np.random.default_rng([stream, repeat])
                played["random"].append(play_scripted(spec, seed, uniform, rng, cache))
            rng = np.random.default_rng(stream)
            played["heuristic"].append(play_scripted(spec, seed, HEURISTICS.get(spec.family, uniform), rng, cache))
            played["walkthrough"].append(play_walkthrough(spec, seed, cache))
            advance(1)
        return played
