"""The gate of a server without games: devices play what is tried against the current version, and send sums.

It never sees an episode. What it decides on is a sum over a part of the fleet, hidden or noised as experience is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..codecs.encoder import Parameters
from ..protocol.config import RunConfig, TrialConfig
from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Vector, VectorSpec
from ..protocol.messages import PlayRequest
from ..protocol.records.summary import Stats
from ..protocol.trials import WEIGHT, TrialTerms, fallbacks_of, health_of, parts_of_trial, sums_of
from ..strategies.server_side import AskFleet
from .cycle.contender import Contender, Version
from .evaluation import UNKNOWN, stats_of_wins
from .events import Advance
from .gate import Decisions, Differences, Evidence, Gate, Verdict
from .requests import signed
from .run_plan import RunPlan
from .safeguards import RunSafeguards

ALL = "all families"
EMPTY = Differences((), np.zeros(0), np.zeros(0), np.zeros(0))  # what a context without content differs in
NOBODY = "nothing was tried, or no device answered"
STANDS_OUT = 2.0  # standard deviations of the noise that a count of devices must be above its limit


def paused(trial: TrialConfig, differences: Differences) -> Verdict | None:
    """Refuse everything if too many devices have gone back from the current version, beyond the noise."""
    counted = round(differences.fallbacks)
    noise = math.sqrt(differences.variance) / (trial.games * trial.clip * WEIGHT)
    # Without noise the count is rounded: a secure sum is exact to a small part of a device only.
    surely = differences.fallbacks - STANDS_OUT * noise if noise else counted
    if surely <= trial.fallback_share * differences.devices:
        return None
    number = f"about {counted}" if noise else f"{counted}"
    reason = f"{number} of {differences.devices:.0f} devices have gone back to the version before"
    return Verdict(False, f"{reason}: promotion is paused", paused=True)


def unavailable(request: PlayRequest, part: int) -> None:
    """Answer for a fleet that cannot be asked now."""


@dataclass(frozen=True, slots=True)
class FleetGate(Decisions):
    """Asks one part of the fleet after the other until it is sure.

    Parameters
    ----------
    parameters
        Public parameters of the codec.
    """

    config: RunConfig
    plan: RunPlan
    parameters: Parameters
    ask: AskFleet = unavailable

    @property
    def episodes(self) -> int:
        """None that this server would play."""
        return 0

    @property
    def blocks(self) -> int:
        """The parts that the fleet is asked in."""
        return parts_of_trial(self.config)

    def with_fleet(self, ask: AskFleet, parameters: Parameters) -> Gate:
        """Return the gate with a way to ask the fleet."""
        return replace(self, ask=ask, parameters=parameters)

    def evidence(self, cycle: int, current: Version, contender: Contender, block: int, advance: Advance) -> Evidence:
        """Ask a part of the fleet; nothing is asked about the current version alone.

        Raises
        ------
        ConfigError
            If the contender has several contexts: a device could not know which one to play.
        """
        empty = Evidence(self.differences(None), UNKNOWN, self.blocks)
        if contender.contexts is None and contender.adapter is current.adapter:
            return empty
        if contender.contexts is None:
            return self._tried(cycle, current, None, contender, block)
        if len(contender.contexts.contexts) > 1:
            raise ConfigError('several contexts at once need server.public = "games"')
        [context] = contender.contexts.contexts
        if not context.weights.any() and not context.words:
            return Evidence(EMPTY, UNKNOWN, self.blocks)
        return self._tried(cycle, current, context.weights, contender, block) if self.config.trial.contexts else empty

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        """Whether the context helps; without trials of contexts, what was distilled from it is tried."""
        if differences.families == EMPTY.families:
            return Verdict(False, "the context is empty")
        if not self.config.trial.contexts:
            return Verdict(True, "contexts are not tried")
        if not differences.episodes.any():
            return Verdict(False, NOBODY, sure=False)
        return paused(self.config.trial, differences) or Decisions.context_helps(self, differences, choices)

    def candidate_holds(self, differences: Differences) -> Verdict:
        """Whether the candidate does not lose; where no context was tried, whether it gains."""
        if not differences.episodes.any():
            return Verdict(False, NOBODY, sure=False)
        if verdict := paused(self.config.trial, differences):
            return verdict
        if self.config.trial.contexts:
            return Decisions.candidate_holds(self, differences)
        verdict = Decisions.context_helps(self, differences)
        return replace(verdict, reason=verdict.reason.replace("with the context", "without the context", 1))

    def _tried(
        self, cycle: int, current: Version, context: Vector | None, contender: Contender, block: int
    ) -> Evidence:
        tries_context = context is not None
        spec = self.spec(current.name, "" if tries_context else contender.policies[0].version)
        request = PlayRequest(
            cycle, self.config.strategy.exchanges + 1, spec, None, current.adapter, context,
            parameters=self.parameters, candidate={} if tries_context else contender.adapter,
        )  # fmt: skip
        aggregate = self.ask(signed(request, RunSafeguards(self.config)), block)
        return Evidence(self.differences(aggregate), _stats_of(aggregate))

    def spec(self, version: str, candidate: str = "") -> VectorSpec:
        """Return what devices are asked for in a trial against a version: of a candidate, or of a context."""
        return TrialTerms.of_run(self.config, candidate).spec(version, self.plan.families)

    @property
    def _detailed(self) -> bool:
        return self.config.privacy.mechanism == "none"

    def differences(self, aggregate: Aggregate | None) -> Differences:
        """Read a sum of answers."""
        families = self.plan.families if self._detailed else (ALL,)
        if aggregate is None:
            zeros = np.zeros(len(families))
            return Differences(families, zeros, zeros, zeros, np.zeros((2, len(families))) if self._detailed else None)
        total, squares, *more = sums_of(aggregate.vector).T
        terms = TrialTerms.of(aggregate.vector.spec)
        episodes = np.maximum(more[0], 0) if more else np.array([float(aggregate.cohort * terms.games)])
        deviation = math.sqrt(aggregate.noise) * terms.games * terms.clip
        wins = np.stack(more[1:]) if more else None
        return Differences(
            families, episodes, total, np.maximum(squares, 0), wins, deviation**2, aggregate.cohort,
            fallbacks_of(aggregate.vector), health_of(aggregate.vector),
        )  # fmt: skip


def _stats_of(aggregate: Aggregate | None) -> Stats:
    """Return how often what is tried won, where the fleet says so."""
    if aggregate is None or not TrialTerms.of(aggregate.vector.spec).detailed:
        return UNKNOWN
    sums = sums_of(aggregate.vector).sum(axis=0)
    return stats_of_wins(float(sums[-1]), float(sums[2]))
