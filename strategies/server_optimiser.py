"""Server optimisers: momentum and Adam over the aggregates of successive exchanges (Reddi et al. 2021).

They are mixins that combine with any aggregation: ``class SecureMomentum(ServerMomentum, SecureMean)`` is a complete
strategy. Their state is the last aggregate that they returned. The server keeps it on disk, so that a resumed run
continues with the same state.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, ExperienceVector, Vector
from .experience import ExperienceStrategy
from .mean import Mean
from .robust import check_fraction


class ServerMomentum(ExperienceStrategy):
    """Exponential moving average of aggregates, as FedAvgM keeps of updates (Hsu et al. 2019, arXiv 1909.06335).

    Gradient and Fisher diagonal are averaged with the same weights, so that their quotient remains a natural step.

    Parameters
    ----------
    server_momentum
        Weight of the previous average.
    """

    def __init__(self, *arguments: Any, server_momentum: float = 0.5, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("server-momentum", server_momentum, 1)
        self.server_momentum = server_momentum

    def optimise(self, aggregate: Aggregate, cycle: int, exchange: int) -> Aggregate:
        """Average with the previous aggregate, which is first scaled to the size of the current cohort."""
        previous = self.server.collected_before(cycle, exchange)
        if previous is None:
            return aggregate
        beta, scale = self.server_momentum, aggregate.cohort / previous.cohort
        gradient = _moving_average(beta, previous.vector.gradient, aggregate.vector.gradient, scale)
        fisher = _moving_average(beta, previous.vector.fisher, aggregate.vector.fisher, scale)
        noise = (1 - beta) ** 2 * aggregate.noise + (beta * scale) ** 2 * previous.noise
        return replace(aggregate, vector=_with(aggregate.vector, gradient, fisher), noise=noise, parts=())


class ServerAdam(ExperienceStrategy):
    """FedAdam over aggregates (Reddi et al. 2021, arXiv 2003.00295).

    The square root of the second moment replaces the Fisher diagonal, so that the natural step becomes the step of
    Adam, ``eta * m / (sqrt(v) + tau)``, with ``context.damping`` as tau and ``context.step`` as eta. Both moments are
    initialised with the first aggregate, so that no bias correction is needed.

    Parameters
    ----------
    beta_1
        Decay of the first moment.
    beta_2
        Decay of the second moment.
    """

    def __init__(self, *arguments: Any, beta_1: float = 0.5, beta_2: float = 0.9, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta-1", beta_1, 1)
        check_fraction("beta-2", beta_2, 1)
        self.beta_1, self.beta_2 = beta_1, beta_2

    def optimise(self, aggregate: Aggregate, cycle: int, exchange: int) -> Aggregate:
        """Update both moments, which are first scaled to the size of the current cohort."""
        previous = self.server.collected_before(cycle, exchange)
        gradient = aggregate.vector.gradient
        if previous is None:
            return replace(aggregate, vector=_with(aggregate.vector, gradient, np.abs(gradient)), parts=())
        scale = aggregate.cohort / previous.cohort
        first = _moving_average(self.beta_1, previous.vector.gradient, gradient, scale)
        root_second = np.sqrt(_moving_average(self.beta_2, previous.vector.fisher**2, gradient**2, scale**2))
        noise = (1 - self.beta_1) ** 2 * aggregate.noise + (self.beta_1 * scale) ** 2 * previous.noise
        return replace(aggregate, vector=_with(aggregate.vector, first, root_second), noise=noise, parts=())


class Momentum(ServerMomentum, Mean):
    """The cohort's sum with server momentum (FedAvgM)."""


class Adam(ServerAdam, Mean):
    """The cohort's sum with Adam on the server (FedAdam)."""


def _moving_average(beta: float, previous: Vector, current: Vector, scale: float) -> Vector:
    average: Vector = (beta * scale * previous.astype(np.float64) + (1 - beta) * current).astype(np.float32)
    return average


def _with(vector: ExperienceVector, gradient: Vector, fisher: Vector) -> ExperienceVector:
    return replace(vector, gradient=gradient, fisher=fisher.astype(np.float32))
