"""What a private run would promise and cost, before anything runs."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ...codecs.codec import load_codec
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError, PrivacyError, SecureSumError
from ...protocol.experience import VectorSpec
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.secagg.graph import Graph, choose_graph
from ...protocol.secagg.keys import SIGNATURE, Advert
from ...protocol.secagg.shares import SEALED, SEED
from ...protocol.trials import TrialTerms, most_trials
from ..accounting import Release, epsilon_of
from ..gate import NOISE, POWER
from ..safeguards import RunSafeguards

STANDS_OUT = 2.0  # standard deviations of the noise


@dataclass(frozen=True, slots=True)
class Forecast:
    """A plan and what follows from it."""

    safeguards: RunSafeguards
    plan: PrivacyPlan
    graph: Graph

    @property
    def uplink(self) -> int:
        """Bytes that a device sends in a round, without Flower's frames."""
        parts = self.graph.neighbours * (SEALED + 2 + SEED + 2)
        return Advert.SIZE + parts + self.plan.cells * self.plan.bits // 8 + SIGNATURE

    @property
    def agreement(self) -> float:
        """Devices that must agree, each with its whole clipping norm, for one number to stand out of the noise."""
        deviation = math.sqrt(self.plan.variance("gradient", self.safeguards.sample()))
        return STANDS_OUT * deviation / self.plan.parts[0].norm

    @property
    def signal(self) -> float:
        """Norm of the sum over a cohort that agrees about everything, over that of the noise."""
        part = self.plan.parts[0]
        noise = math.sqrt(self.plan.variance("gradient", self.safeguards.sample()) * part.size)
        return self.safeguards.sample() * part.norm / noise

    def epsilon_against_server(self, colluding: float) -> float:
        """Epsilon against an attacker who knows every cohort and the noise of `colluding` of it."""
        run, plan = self.safeguards, self.plan
        honest = 1 - colluding * run.sample() / plan.minimum
        if honest <= 0:
            return math.inf
        known = Release(run.noise_multiplier * math.sqrt(honest), run.population, run.population)
        return epsilon_of(known, run.releases, run.config.privacy.delta)

    def lines(self) -> list[str]:
        """Return the forecast as lines of text."""
        run, plan, privacy = self.safeguards, self.plan, self.safeguards.config.privacy
        seen, helped = (self.epsilon_against_server(share) for share in (0.0, privacy.colluding))
        norms = ", ".join(f"{part.name} to {part.norm:g} ({part.size} cells)" for part in plan.parts)
        return [
            f"epsilon        {privacy.epsilon:g} at delta {privacy.delta:g}, for whoever sees every model and sum of "
            f"{run.releases} releases",
            f"               {seen:.3g} for who also knows who took part in each, as the server does",
            f"               {helped:.3g} for a server that works together with {privacy.colluding:.0%} of each cohort",
            f"noise          multiplier {run.noise_multiplier:.3f} on the sum, from shares of at least "
            f"{plan.minimum} survivors of {run.sample()}",
            f"sampling       each device with chance {run.chance():.3g}: {run.sample()} of {run.population} on average"
            f"{self._redraws}",
            f"clipping       {norms}",
            f"secure sum     {self.graph.neighbours} neighbours each, {self.graph.threshold} recover a secret; "
            f"{privacy.colluding:.0%} may collude, {privacy.max_dropout:.0%} may drop out",
            f"cells          {plan.bits} bits, {plan.steps} steps to a norm; chance to wrap around below "
            f"{plan.wrap_probability:.1e}, loss of privacy to discreteness below {plan.discreteness_loss:.1e}",
            f"uplink         {self.uplink:,} bytes a device and round, in five messages",
            f"forecast       a number stands out once {self.agreement:.1f} of {run.sample()} devices agree on it with "
            "all they may send",
            f"               a cohort that agrees about everything is {self.signal:.2g} times the noise",
            *self._trials(),
        ]

    @property
    def _redraws(self) -> str:
        """Say if sampling counts for nothing."""
        run = self.safeguards
        if run.accounted < run.population or run.sample() == run.population:
            return ""
        return ", too few for sampling to count: draws that are made again, for their size, would tell too much"

    def _trials(self) -> list[str]:
        """Say what trials on devices cost and see; nothing where the server plays games itself."""
        config = self.safeguards.config
        if not most_trials(config):
            return []
        spec = TrialTerms.of_run(config).spec("", ("any",))
        devices, plan = self.safeguards.sample(spec), self.safeguards.plan(spec)
        # With the same error from chance: differences are at most `clip`, and half of that where half of them are zero.
        noise = math.sqrt(plan.variance("gradient", devices)) * config.trial.clip / devices
        chance = config.trial.clip / 2 / math.sqrt(devices * config.trial.games)
        seen = (NOISE + POWER) * math.hypot(noise, chance)
        experience, cycles = config.strategy.exchanges, config.cycles
        return [
            f"releases       {cycles} cycles of {experience} of experience and up to {most_trials(config)} of trials, "
            "all with the same noise",
            f"trials         {config.trial.games} games of each of {devices} devices, twice; the noise alone is "
            f"{noise:.3f} of a difference in merit",
            f"               the gate sees a gain in merit of {seen:.2f} nine times out of ten, a win and its score "
            "counting 2",
        ]


def forecast(config: RunConfig) -> Forecast:
    """Plan a private run.

    Raises
    ------
    ConfigError
        If there is no such plan.
    """
    safeguards, encoder = RunSafeguards(config), load_codec(config.codec.name).encoder
    spec = VectorSpec(
        encoder.name, encoder.dimension, encoder.vocabulary, "", ("any",), 1, config.codec.clipping_norm, 1.0
    )
    try:
        plan = safeguards.plan(spec)
        graph = choose_graph(safeguards.sample(), config.privacy.colluding, config.privacy.max_dropout)
    except (PrivacyError, SecureSumError) as error:
        raise ConfigError(str(error)) from error
    return Forecast(safeguards, plan, graph)
