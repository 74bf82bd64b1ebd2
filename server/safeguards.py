"""The server's half of privacy: one plan for a run, from its configuration, and the ledger that holds it to it."""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ..protocol.config import RunConfig
from ..protocol.errors import PrivacyError
from ..protocol.experience import VectorSpec
from ..protocol.fleet.membership import MEMBERS, RunMode, keys_folder, load_members
from ..protocol.privacy.plan import Part, PrivacyPlan
from ..protocol.records.summary import PrivacyPromise
from .ledger import Ledger

WIDE = 6.0  # standard deviations of a cohort's size that a plan allows for


@dataclass
class RunSafeguards:
    """Implements `fedoel.strategies.server_side.Safeguards`."""

    config: RunConfig

    @cached_property
    def ledger(self) -> Ledger:
        """Where rounds and releases are written down."""
        return Ledger(Path(self.config.out) / "privacy.jsonl")

    @property
    def mode(self) -> RunMode:
        """Whether the devices of the run are simulated or deployed."""
        return RunMode.of(self.config)

    @property
    def members(self) -> Collection[bytes]:
        """Public keys of the fleet's devices; read anew each time, since devices join and leave during a run."""
        return load_members(keys_folder(self.config))[0].identities

    @property
    def signed_members(self) -> bytes:
        """The signed list that devices check; empty in a simulation, whose devices read it from their folder."""
        return (keys_folder(self.config) / MEMBERS).read_bytes() if self.mode is RunMode.DEPLOYMENT else b""

    @property
    def colluding(self) -> float:
        return self.config.privacy.colluding

    @property
    def max_dropout(self) -> float:
        return self.config.privacy.max_dropout

    @property
    def noisy(self) -> bool:
        return self.config.privacy.epsilon > 0

    @property
    def population(self) -> int:
        """Devices that any release might draw."""
        return self.config.privacy.population or self.config.clients

    @property
    def sample(self) -> int:
        """Devices that a release draws on average."""
        strategy = self.config.strategy
        return max(1, round(self.population * strategy.fraction_train / strategy.exchanges))

    @property
    def chance(self) -> float:
        """Chance of each device to be drawn for a release."""
        return self.sample / self.population

    @property
    def secret(self) -> int:
        """Secret seed of the draw of cohorts, from the ledger; 0 in a simulation, whose draws repeat."""
        return self.ledger.secret if self.mode is RunMode.DEPLOYMENT else 0

    @property
    def releases(self) -> int:
        """Releases that the run is going to make."""
        return self.config.cycles * self.config.strategy.exchanges

    @cached_property
    def noise_multiplier(self) -> float:
        """Noise of every release, in joint clipping norms; 0 without a budget."""
        if not self.noisy:
            return 0.0
        from .accounting import multiplier_for

        privacy = self.config.privacy
        return multiplier_for(privacy.epsilon, privacy.delta, self._accounted, self.population, self.releases)

    @property
    def _accounted(self) -> int:
        """Devices of a release that the accountant may take for drawn at random: who sends its noise is seen."""
        return self.population if self.config.privacy.mechanism == "local" else self.sample

    def plan(self, spec: VectorSpec) -> PrivacyPlan:
        """Return the plan that every release of this run follows.

        Raises
        ------
        PrivacyError
            If the cohort is too small to be one.
        """
        share = self.config.privacy.fisher_share
        weights = {"gradient": math.sqrt(1 - share), "fisher": math.sqrt(share)}
        parts = tuple(Part(n, spec.sizes[n], spec.norms[n], weight) for n, weight in weights.items() if weight)
        spread = WIDE * math.sqrt(self.sample * (1 - self.chance)) if self.noisy else 1.0
        largest = min(self.population, math.ceil(self.sample + spread))
        minimum = math.floor(self.sample * (1 - self.max_dropout))
        if minimum < 2 or largest < 3:
            raise PrivacyError(
                f"{self.sample} devices a release, of which {self.max_dropout:.0%} may drop out, are too few to hide "
                "in: raise clients or strategy.fraction-train, or lower strategy.exchanges"
            )
        shared = self.config.privacy.mechanism in ("none", "distributed")
        return PrivacyPlan.make(parts, largest, minimum if shared else 1, self.noise_multiplier)

    def begin_round(self) -> tuple[str, int]:
        """Number a round that was never used, not even before a crash."""
        return self.ledger.run, self.ledger.begin()

    def check_budget(self) -> None:
        """Refuse another release that would exceed the budget."""
        if self.noisy and self.ledger.spent() >= self.releases:
            raise PrivacyError(
                f"all {self.releases} releases that epsilon {self.config.privacy.epsilon:g} pays for have been made"
            )

    def spend(self, cycle: int) -> None:
        """Write a release down before it happens."""
        self.check_budget()
        privacy = self.config.privacy
        self.ledger.spend(
            cycle, noise_multiplier=self.noise_multiplier, sample=self.sample, population=self.population,
            delta=privacy.delta,
        )  # fmt: skip

    def spent(self, cycle: int | None = None) -> float:
        """Epsilon of what was released up to a cycle, against those who do not know who took part; 0 without noise."""
        releases = self.ledger.spent(cycle) if self.noisy else 0
        if not releases:
            return 0.0
        from .accounting import Release, epsilon_of

        release = Release(self.noise_multiplier, self._accounted, self.population)
        return epsilon_of(release, releases, self.config.privacy.delta)

    def describe(self, secure: bool) -> PrivacyPromise:
        """Say what a run promises, for its summary.

        Parameters
        ----------
        secure
            Whether the server sees sums only.
        """
        privacy = self.config.privacy
        if not self.noisy:
            return PrivacyPromise(mechanism=privacy.mechanism, secure_sum=secure)
        return PrivacyPromise(
            mechanism=privacy.mechanism, secure_sum=secure, epsilon=privacy.epsilon, delta=privacy.delta,
            noise_multiplier=self.noise_multiplier, sample=self.sample, population=self.population,
            releases=self.releases,
        )  # fmt: skip
