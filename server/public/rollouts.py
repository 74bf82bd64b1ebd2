"""Public turns of a server that plays: it plays its rehearsal games as the cohort plays, once for every exchange."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import ClassVar

from ...codecs.context import TeacherContext, no_context
from ...codecs.encoder import count, encode, rewarded
from ...codecs.tactics.policy import uniform_policy
from ...games.partition import games_per_client
from ...games.prepare import prepare
from ...policies.policy import Policy
from ...protocol.errors import GameError
from ...protocol.experience import Aggregate, ExperienceVector, Vector
from ...protocol.play import Trajectory, Turn, turns_of
from ...protocol.situation import Situation
from ..cycle.collect import numbered
from ..cycle.contender import Version
from ..cycle.context import contexts_of
from ..cycle.mixture import Mixture
from ..cycle.run import Run, States, TrainingTurns
from .games import PublicGames
from .turns import turns_under

SAMPLED = 8  # games that a sample of situations is from


@dataclass(frozen=True, slots=True)
class GamesPublic:
    """Public games: implements `fedoel.server.cycle.run.Public`."""

    games: PublicGames
    digest: ClassVar[str] = ""

    def prepare(self) -> None:
        """Make the games, in other processes."""
        plan = self.games.plan
        prepare((*plan.rehearsal, *plan.gate[0], *plan.measured), self.games.cache)

    def uniform(self) -> list[Turn]:
        """Play the rehearsal games uniformly.

        Raises
        ------
        GameError
            If every game is over before its first turn: a run could play for hours, and learn nothing.
        """
        turns = turns_of(self.games.play(uniform_policy(), self.games.plan.rehearsal, "uniform"))
        if not turns:
            raise GameError(
                f"all {len(self.games.plan.rehearsal)} rehearsal games are over before their first turn, so that there "
                "is nothing to learn from: games.families needs a game that offers a command"
            )
        return turns

    def for_parameters(self) -> list[Turn]:
        """Play the rehearsal games and the first cycle's prompts uniformly."""
        prompts = self.games.plan.prompts(0)
        prepare(prompts, self.games.cache)
        return [*self.uniform(), *turns_of(self.games.play(uniform_policy(), prompts, "prompts"))]

    def situations(self) -> list[Situation]:
        """Return the situations of uniform play that have a choice."""
        return [turn.situation for turn in self.for_parameters() if len(turn.situation.admissible) > 1]

    def unlisted(self) -> list[Situation]:
        """Return none: games list commands."""
        return []

    def sample(self, number: int) -> list[Situation]:
        """Return situations of uniform play in a few rehearsal games, evenly spread over them."""
        turns = turns_of(self.games.play(uniform_policy(), self.games.plan.rehearsal[:SAMPLED], "uniform"))
        situations = [turn.situation for turn in turns if len(turn.situation.admissible) > 1]
        chosen = min(number, len(situations))
        return [situations[index * len(situations) // chosen] for index in range(chosen)]

    def states(self, run: Run, version: Version, cycle: int) -> States:
        """Return the rollouts of a version in a cycle."""
        return PublicRollouts(run, self.games, version, cycle)


class PublicRollouts:
    """Rollouts of one version in one cycle, in memory: implements `fedoel.server.cycle.run.States`.

    They are played in the order of the exchanges, and all of them again after a resume: the last bits of what a model
    computes depend on what its prefix cache holds, and a resumed run must give the same result as one without a break.
    """

    def __init__(self, run: Run, games: PublicGames, version: Version, cycle: int) -> None:
        self.run, self.version, self.cycle = run, version, cycle
        self._games = games
        self._played: list[list[Trajectory]] = []

    def of(self, exchange: int, contexts: Sequence[TeacherContext]) -> list[Trajectory]:
        """Return the rollouts of an exchange; parameters as in `under`."""
        if not self._played:
            self.run.learner.forget()
        while len(self._played) < exchange:
            number = len(self._played) + 1
            policy = self.run.codec.teacher(self.run.learner.policy(self.version.adapter), contexts[number - 1])
            purpose = numbered("rehearsal", number)
            self._played.append(self._games.play(policy, self._games.plan.rehearsal, purpose, self.cycle))
        return self._played[exchange - 1]

    def under(self, exchange: int, contexts: Sequence[TeacherContext]) -> list[Turn]:
        """Return the turns of an exchange.

        Parameters
        ----------
        contexts
            The contexts that the exchanges up to this one were played under.
        """
        return turns_of(self.of(exchange, contexts))

    def without_context(self) -> list[Turn]:
        """Return the turns of the first exchange, which are those of the bare policy."""
        return self.under(1, [no_context(self.run.codec.encoder.dimension)])

    def baseline(self, exchange: int, contexts: Sequence[TeacherContext]) -> Vector:
        """Mean return-to-go by family and step in an exchange, shape ``(families, horizon)``."""
        played, discount = self._experience(exchange, contexts), self.run.config.codec.discount
        return count(played, self.run.spec(self.version.name), discount).baseline()

    def reference(self, exchange: int, contexts: Sequence[TeacherContext]) -> ExperienceVector:
        """Encode the rollouts of an exchange as a device does, without clipping."""
        run, played = self.run, self._experience(exchange, contexts)
        policy = run.codec.teacher(run.learner.policy(self.version.adapter), contexts[exchange - 1])
        spec, discount = run.spec(self.version.name), run.config.codec.discount
        return encode(run.codec.encoder, policy, played, spec, self.baseline(exchange, contexts), discount)

    def _experience(self, exchange: int, contexts: Sequence[TeacherContext]) -> Sequence[Trajectory]:
        """Return the rollouts of an exchange with the rewards that devices learn from."""
        return rewarded(self.of(exchange, contexts), self.run.config.games.refusal)

    def scale(self, aggregate: Aggregate, turns: Sequence[Turn]) -> float:
        """How many times as many games the cohort played as the server."""
        games, clients = self.run.config.games, self.run.config.clients
        each = fmean(games_per_client(games.per_client, clients, games.amounts, self.run.config.seed))
        return aggregate.cohort * each / len(self._games.plan.rehearsal)

    def training(self, contexts: Mixture) -> list[TrainingTurns]:
        """Play with the teachers: turns that the student visits itself, those that they lead to, and random ones."""
        run, games = self.run, self._games.plan.rehearsal
        exchanges = len(run.exchanges)
        # All rollouts of the cycle, needed or not: what the prefix cache holds must not depend on a resume.
        self.of(exchanges, contexts_of(run, self, exchanges - 1))
        policy = run.learner.policy(self.version.adapter)
        visited = self.of(1, []) if run.config.distil.on_policy else []
        teachers = [run.codec.teacher(policy, context) for context in contexts.contexts]
        led, drawn = self._games.play_mixture(teachers, contexts, games, "rehearsal-teacher", self.cycle)
        prompts = self._prompts(teachers, contexts)
        return [
            TrainingTurns(_drawn(visited, drawn, index), [*_drawn(led, drawn, index), *prompts[index]])
            for index in range(len(teachers))
        ]

    def _prompts(self, teachers: Sequence[Policy], contexts: Mixture) -> list[list[Turn]]:
        """Return, for each context, states of random play with its teacher's log-probabilities."""
        games, turns = self._games.plan.prompts(self.cycle), list[list[Turn]]()
        prepare(games, self._games.cache)
        played = self._games.play(uniform_policy(), games, "prompts", self.cycle)
        drawn = contexts.draw(games, self._games.plan.streams("prompts", len(games), self.cycle))
        for index, teacher in enumerate(teachers):
            states = [turn for turn in _drawn(played, drawn, index) if len(turn.situation.admissible) > 1]
            situations, seed = [turn.situation for turn in states], [self.run.plan.training_seed(self.cycle), 1, index]
            turns.append(turns_under(teacher, situations, seed) if states else [])
        return turns


def _drawn(played: Sequence[Trajectory], drawn: Sequence[int], index: int) -> list[Turn]:
    """Return the turns of the games for which a context was drawn."""
    return turns_of([t for t, choice in zip(played, drawn, strict=bool(played)) if choice == index])
