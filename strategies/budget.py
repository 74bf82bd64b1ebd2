"""Strategies whose releases are differentially private: how cohorts are drawn, and when a budget is at its end."""

from __future__ import annotations

from logging import WARNING

import numpy as np
from flwr.app import MetricRecord
from flwr.serverapp import Grid

from ..protocol.errors import ConfigError, PrivacyError
from ..protocol.experience import VectorSpec
from .experience import ExperienceStrategy, log
from .rounds import Traffic

EXHAUSTED = "privacy budget exhausted"


class BudgetStrategy(ExperienceStrategy):
    """Draws every device with the same chance, independently, and asks nobody once the budget is spent."""

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Draw the devices of a release, in random order; a fixed share of them where releases have no noise."""
        safeguards = self.server.safeguards
        rng = np.random.default_rng([self.seed, cycle, exchange, len(nodes), safeguards.secret])
        if safeguards.noisy:
            chance = safeguards.chance
            cohort = [node for node, drawn in zip(nodes, rng.random(len(nodes)) < chance, strict=True) if drawn]
        else:
            cohort = self._part(nodes, cycle, exchange)
        return [cohort[place] for place in rng.permutation(len(cohort)).tolist()]

    def check(self, spec: VectorSpec) -> None:
        """Refuse cohorts that are too small to hide in, and budgets that no noise keeps."""
        try:
            self.server.safeguards.plan(spec)
        except PrivacyError as error:
            raise ConfigError(str(error)) from error

    def exchange(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Make a release, or say that there is nothing left to make one with."""
        try:
            self.server.safeguards.check_budget()
        except PrivacyError as error:
            log(WARNING, "exchange: no release: %s", error)
            self.hand_on(server_round, None, Traffic(0.0, 0.0, 0, {EXHAUSTED: 1}))
            return MetricRecord({"accepted": 0, "refused": 1})
        return self.release(grid, server_round, timeout)

    def release(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Ask the devices that were drawn, and hand on what came of it."""
        return super().exchange(grid, server_round, timeout)
