"""Sums of the cohort's vectors: the plain sum, which is the default, and sums with central or local noise.

With a differential privacy budget, cohorts are drawn by Poisson sampling, and a run stops when the budget is exhausted.
"""

from __future__ import annotations

from collections.abc import Sequence
from logging import WARNING

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid

from ..protocol.errors import ConfigError, PrivacyError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, VectorSpec, total
from ..protocol.messages import PlayRequest
from ..protocol.secagg.masks import cell_type
from .experience import TRIALS, ExperienceStrategy, log
from .server_side import Traffic

DRAWS = 100  # of a cohort that is too small each time
EXHAUSTED = "privacy budget exhausted"


class Mean(ExperienceStrategy):
    """Sum the cohort's vectors. A client's weight is proportional to the number of turns that it played."""

    carries_words = True

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors, and concatenate the words."""
        words = tuple(word for contribution in contributions for word in contribution.words)
        return Aggregate(total(contribution.vector for contribution in contributions), len(contributions), words=words)


class BudgetStrategy(ExperienceStrategy):
    """Samples the cohort by Poisson sampling, and makes no release once the privacy budget is exhausted."""

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Sample the cohort of a release, in random order.

        With noise, each device is drawn independently with the same probability, as the privacy accounting assumes.
        Without noise, the cohort is the fixed fraction `fraction_train`.
        """
        chosen = super().draw(nodes, cycle, exchange) if not self.server.safeguards.noisy else nodes
        return self._drawn(nodes, chosen, (cycle, exchange), self.server.safeguards.chance())

    def draw_trial(self, nodes: list[int], request: PlayRequest, part: int) -> list[int]:
        """Sample the devices of a trial; with noise, every trial draws anew, as the privacy accounting assumes."""
        chosen = super().draw_trial(nodes, request, part) if not self.server.safeguards.noisy else nodes
        drawn = (TRIALS + request.cycle, request.serial)
        return self._drawn(nodes, chosen, drawn, self.server.safeguards.chance(request.spec))

    def _drawn(self, nodes: list[int], chosen: list[int], draw: tuple[int, int], chance: float) -> list[int]:
        """Return the chosen nodes in random order; with noise, each of them with a chance, independently."""
        safeguards = self.server.safeguards
        rng = np.random.default_rng([self.seed, *draw, len(nodes), safeguards.secret])
        if safeguards.noisy:
            chosen = self._independent(nodes, draw, chance)
        return [chosen[index] for index in rng.permutation(len(chosen)).tolist()]

    def _independent(self, nodes: list[int], draw: tuple[int, int], chance: float) -> list[int]:
        """Draw each node with a chance, by random numbers of its own, and again while the cohort is not releasable.

        Asked again for the same draw, it gives the same cohort, but for nodes that have left or come: a release that
        failed because devices dropped out is tried again with those that were drawn, and waits for them.
        """
        safeguards, cohort = self.server.safeguards, list[int]()
        for attempt in range(DRAWS):
            seed = [self.seed, *draw, attempt, safeguards.secret]
            cohort = [node for node in nodes if np.random.default_rng([*seed, node]).random() < chance]
            if safeguards.releasable(len(cohort)):
                break
        return cohort

    def check(self, spec: VectorSpec) -> None:
        """Refuse a cohort below the minimum for privacy, and a budget that no noise multiplier meets."""
        try:
            self.server.safeguards.plan(spec)
        except PrivacyError as error:
            raise ConfigError(str(error)) from error

    def trial(self, grid: Grid, request: PlayRequest, part: int) -> Aggregate | None:
        """Make a release for a trial, or log that the privacy budget is exhausted."""
        try:
            self.server.safeguards.check_budget()
        except PrivacyError as error:
            log(WARNING, "trial: no release: %s", error)
            return None
        return self.release_trial(grid, request, part)

    def release_trial(self, grid: Grid, request: PlayRequest, part: int) -> Aggregate | None:
        """Ask the devices of a trial, and add their answers up."""
        return super().trial(grid, request, part)

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


class CentralMean(BudgetStrategy):
    """Central DP: a trusted server receives every vector and adds noise once, to the sum.

    For a given epsilon this needs the least noise of all mechanisms.
    """

    mechanisms = frozenset({"central"})

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Clip and round each vector as a device does under secure aggregation, sum, and add the noise."""
        return self._noisy_sum(contributions, self.current[0])

    def aggregate_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        """Add noise to the sum of the answers."""
        return self._noisy_sum(contributions, cycle)

    def _noisy_sum(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        spec, safeguards = contributions[0].vector.spec, self.server.safeguards
        plan = safeguards.plan(spec)
        safeguards.spend(cycle)
        noisy_sum = np.sum([plan.quantised(item.vector.parts()) for item in contributions], axis=0) + plan.noise()
        parts = plan.decode(noisy_sum.astype(cell_type(plan.bits)))
        # The number of devices that are drawn on average: the exact one would tell who took part.
        return Aggregate(
            ExperienceVector.from_parts(spec, parts), safeguards.sample(spec), plan.variance("gradient", 1)
        )


class LocalMean(BudgetStrategy):
    """Local DP: every device adds the full noise to its own vector, so that it need not trust the server.

    For a given epsilon this needs the most noise of all mechanisms. A vector is released as soon as it is sent, so that
    a release is written down before anybody is asked, and counts even if nobody answers.
    """

    mechanisms = frozenset({"local"})

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask as other strategies do, once the release is on disk."""
        messages = super().configure_train(server_round, arrays, config, grid)
        return self._paid(messages, self.place(server_round)[0])

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask for a trial, whose round is its cycle, once the release is on disk."""
        return self._paid(list(super().configure_evaluate(server_round, arrays, config, grid)), server_round)

    def _paid(self, messages: list[Message], cycle: int) -> list[Message]:
        if messages:
            self.server.safeguards.spend(cycle)
        return messages

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors, which carry noise already."""
        return self._sum(contributions)

    def aggregate_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        """Sum the answers, which carry noise already."""
        return self._sum(contributions)

    def _sum(self, contributions: Sequence[Contribution]) -> Aggregate:
        devices, plan = len(contributions), self.server.safeguards.plan(contributions[0].vector.spec)
        return Aggregate(total(item.vector for item in contributions), devices, plan.variance("gradient", devices))
