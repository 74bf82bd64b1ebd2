"""Public turns of a server that never plays: prompts of a pack, without rewards, as its policies would answer them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial

import numpy as np

from ...codecs.context import TeacherContext, no_context
from ...codecs.tactics.policy import uniform_policy
from ...protocol.errors import FedoelError
from ...protocol.experience import Aggregate, ExperienceVector, Vector
from ...protocol.play import Turn
from ...protocol.prompt_pack import PromptPack
from ...protocol.situation import Situation
from ..cycle import collect
from ..cycle.contender import Version
from ..cycle.mixture import Mixture
from ..cycle.run import Run, States, TrainingTurns
from ..learner import Divided
from .turns import turns_under

FOR_PARAMETERS = 600  # prompts that a codec's parameters are computed from, at most


@dataclass(frozen=True)
class PromptsPublic:
    """A pack of prompts: implements `fedoel.server.cycle.run.Public`.

    Parameters
    ----------
    per_cycle
        How many prompts a cycle uses.
    seed
        Seed of the order in which cycles use them.
    """

    pack: PromptPack
    per_cycle: int
    seed: int

    @property
    def digest(self) -> str:
        """Digest of the pack."""
        return self.pack.digest

    def prepare(self) -> None:
        """Do nothing: there are no games."""

    def uniform(self) -> list[Turn]:
        """Return the prompts of cycle 0 as turns of uniform play."""
        return turns_under(uniform_policy(), self.of_cycle(0))

    def for_parameters(self) -> list[Turn]:
        """Return prompts as turns of uniform play."""
        return turns_under(uniform_policy(), [self._situations[index] for index in self._order[:FOR_PARAMETERS]])

    def situations(self) -> Sequence[Situation]:
        """Return all prompts with several commands, in the order in which cycles use them."""
        return [self._situations[index] for index in self._order]

    def unlisted(self) -> Sequence[Situation]:
        """Return the prompts without a command."""
        return [prompt.situation for prompt in self.pack.prompts if not prompt.situation.admissible]

    def sample(self, number: int) -> Sequence[Situation]:
        """Return the first prompts in the order in which cycles use them."""
        return [self._situations[index] for index in self._order[:number]]

    def states(self, run: Run, version: Version, cycle: int) -> States:
        """Return the prompts of a cycle as turns of a version."""
        return PromptStates(run, self.of_cycle(cycle), version, cycle)

    def of_cycle(self, cycle: int) -> list[Situation]:
        """Return the prompts of a cycle: other ones in every cycle, until all have been used."""
        size = min(self.per_cycle, len(self._order))
        first = cycle * size
        return [self._situations[self._order[(first + i) % len(self._order)]] for i in range(size)]

    @cached_property
    def _situations(self) -> list[Situation]:
        # An open answer, or the only command, has no alternatives to learn from.
        return [prompt.situation for prompt in self.pack.prompts if len(prompt.situation.admissible) > 1]

    @cached_property
    def _order(self) -> list[int]:
        number = len(self._situations)
        order: list[int] = np.random.default_rng([self.seed, number]).permutation(number).tolist()
        return order


class PromptStates:
    """The prompts of one version in one cycle: implements `fedoel.server.cycle.run.States`.

    All exchanges of a cycle use the same prompts, under the policy that plays the exchange.
    """

    def __init__(self, run: Run, situations: Sequence[Situation], version: Version, cycle: int) -> None:
        self.run, self.version, self.cycle = run, version, cycle
        self._situations = situations
        self._bare: list[Turn] | None = None
        self._answered: list[list[Turn]] = []

    def under(self, exchange: int, contexts: Sequence[TeacherContext]) -> list[Turn]:
        """Return the prompts with the log-probabilities of the policy that plays an exchange.

        They are computed in the order of the exchanges, all of them again after a resume: see `PublicRollouts`. The
        model is evaluated once, where contexts add to scores: each tilts the answers without a context.
        """
        bare = self.without_context()
        while len(self._answered) < exchange:
            context, begins = contexts[len(self._answered)], not self._answered
            if begins and not context.weights.any():
                self._answered.append(bare)
            else:
                self._answered.append(self._tilted(bare, context) if self._tilts else self._under(context))
        return self._answered[exchange - 1]

    @property
    def _tilts(self) -> bool:
        """Whether answers under a context follow from those without: not those that are written, which are drawn."""
        return self.run.codec.encoder.is_additive and self.run.config.policy.decoding != "free"

    def _tilted(self, bare: Sequence[Turn], context: TeacherContext) -> list[Turn]:
        policy = self.run.learner.policy(self.version.adapter)
        answers = self.run.codec.teacher_log_probs(policy, bare, context)
        return [replace(turn, log_probs=log_probs) for turn, log_probs in zip(bare, answers, strict=True)]

    def _under(self, context: TeacherContext) -> list[Turn]:
        learner, adapter = self.run.learner, self.version.adapter
        apply_context = partial(self.run.codec.teacher, context=context)
        seed = [self.run.plan.training_seed(self.cycle), len(self._answered)]
        if isinstance(learner, Divided):
            return learner.turns(adapter, apply_context, self._situations, seed)
        return turns_under(apply_context(learner.policy(adapter)), self._situations, seed)

    def without_context(self) -> list[Turn]:
        """Return the prompts with the log-probabilities of the bare policy."""
        if self._bare is None:
            self.run.learner.forget()
            self._bare = self._under(no_context(self.run.codec.encoder.dimension))
        return self._bare

    def baseline(self, exchange: int, contexts: Sequence[TeacherContext]) -> Vector | None:
        """Return the fleet's mean returns in the exchange before, if the run wants them and they are known."""
        if self.run.config.server.baseline != "fleet":
            return None
        before = collect.collected_before(self.run, self.cycle, exchange)
        if before is None or not before.vector.counters.visits.any():
            return None
        return before.vector.counters.baseline()

    def reference(self, exchange: int, contexts: Sequence[TeacherContext]) -> ExperienceVector:
        """Raise: a server without rewards has learned nothing itself."""
        raise FedoelError('a server that has prompts only knows no rewards: set server.public = "games"')

    def scale(self, aggregate: Aggregate, turns: Sequence[Turn]) -> float:
        """How many times as many turns the fleet has played as there are prompts.

        Where counters do not say it, every game is taken to be as long as it may be: then steps are rather too short.
        """
        played = float(aggregate.vector.counters.values[:, 2].sum())
        games = self.run.config.games.per_client
        return (played or aggregate.cohort * games * self.run.plan.horizon) / max(1, len(turns))

    def training(self, contexts: Mixture) -> list[TrainingTurns]:
        """Return the cycle's prompts for every context; those of several are spread over the prompts by turns."""
        turns, number = self.without_context(), len(contexts.contexts)
        return [TrainingTurns(turns[index::number], ()) for index in range(number)]
