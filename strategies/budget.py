"""Strategies with a differential privacy budget: Poisson sampling of the cohort, and a stop when it is exhausted."""

from __future__ import annotations

from logging import WARNING

import numpy as np
from flwr.app import MetricRecord
from flwr.serverapp import Grid

from ..protocol.errors import ConfigError, PrivacyError
from ..protocol.experience import VectorSpec
from .experience import ExperienceStrategy, log
from .server_side import Traffic

EXHAUSTED = "privacy budget exhausted"


class BudgetStrategy(ExperienceStrategy):
    """Samples the cohort by Poisson sampling, and makes no release once the privacy budget is exhausted."""

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Sample the cohort of a release, in random order.

        With noise, each device is drawn independently with the same probability, as the privacy accounting assumes.
        Without noise, the cohort is the fixed fraction `fraction_train`.
        """
        safeguards = self.server.safeguards
        rng = np.random.default_rng([self.seed, cycle, exchange, len(nodes), safeguards.secret])
        if safeguards.noisy:
            chance = safeguards.chance
            cohort = [node for node, drawn in zip(nodes, rng.random(len(nodes)) < chance, strict=True) if drawn]
        else:
            cohort = super().draw(nodes, cycle, exchange)
        return [cohort[index] for index in rng.permutation(len(cohort)).tolist()]

    def check(self, spec: VectorSpec) -> None:
        """Refuse a cohort below the minimum for privacy, and a budget that no noise multiplier meets."""
        try:
            self.server.safeguards.plan(spec)
        except PrivacyError as error:
            raise ConfigError(str(error)) from error

    def exchange(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Make a release, or log and record that the privacy budget is exhausted."""
        try:
            self.server.safeguards.check_budget()
        except PrivacyError as error:
            log(WARNING, "exchange: no release: %s", error)
            self.hand_on(server_round, None, Traffic(0.0, 0.0, 0, {EXHAUSTED: 1}))
            return MetricRecord({"accepted": 0, "refused": 1})
        return self.release(grid, server_round, timeout)

    def release(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Send the request to the sampled cohort, and hand the aggregate to the server."""
        return super().exchange(grid, server_round, timeout)
