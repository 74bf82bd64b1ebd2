"""Server optimisers: what cycles before have said counts too.

They go before any way to aggregate: ``class SecureMomentum(ServerMomentum, SecureMean)`` is a strategy already.

What they keep is what they last handed on, which the server has on disk: a run that is resumed goes on as it was.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from ..protocol.experience import Aggregate, ExperienceVector, Vector
from .experience import ExperienceStrategy
from .mean import Mean
from .robust import check_share


class ServerMomentum(ExperienceStrategy):
    """A running mean of aggregates, as FedAvgM has of updates (Hsu et al. 2019, arXiv 1909.06335).

    Gradient and Fisher diagonal are averaged alike, so that the natural step stays one.

    Parameters
    ----------
    server_momentum
        Weight of what was handed on before.
    """

    def __init__(self, *arguments: Any, server_momentum: float = 0.5, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_share("server-momentum", server_momentum, 1)
        self.server_momentum = server_momentum

    def optimise(self, aggregate: Aggregate, cycle: int, exchange: int) -> Aggregate:
        """Mix with what was handed on before, on the scale of this cohort."""
        before = self.server.rounds.collected_before(cycle, exchange)
        if before is None:
            return aggregate
        beta, scale = self.server_momentum, aggregate.cohort / before.cohort
        gradient = _mix(beta, before.vector.gradient, aggregate.vector.gradient, scale)
        fisher = _mix(beta, before.vector.fisher, aggregate.vector.fisher, scale)
        noise = (1 - beta) ** 2 * aggregate.noise + (beta * scale) ** 2 * before.noise
        return replace(aggregate, vector=_with(aggregate.vector, gradient, fisher), noise=noise, parts=())


class ServerAdam(ExperienceStrategy):
    """Adam over aggregates, as FedAdam (Reddi et al. 2020, arXiv 2003.00295).

    The root of the second moment takes the place of the Fisher diagonal, so that the natural step becomes Adam's:
    ``m / (sqrt(v) + tau)`` with ``context.damping`` as tau and ``context.step`` as eta. Both moments start with the
    first aggregate, so that nothing has to be corrected for a start at zero.

    Parameters
    ----------
    beta_1
        Momentum parameter.
    beta_2
        Second moment parameter.
    """

    def __init__(self, *arguments: Any, beta_1: float = 0.5, beta_2: float = 0.9, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_share("beta-1", beta_1, 1)
        check_share("beta-2", beta_2, 1)
        self.beta_1, self.beta_2 = beta_1, beta_2

    def optimise(self, aggregate: Aggregate, cycle: int, exchange: int) -> Aggregate:
        """Move both moments, on the scale of this cohort."""
        before = self.server.rounds.collected_before(cycle, exchange)
        gradient = aggregate.vector.gradient
        if before is None:
            return replace(aggregate, vector=_with(aggregate.vector, gradient, np.abs(gradient)), parts=())
        scale = aggregate.cohort / before.cohort
        first = _mix(self.beta_1, before.vector.gradient, gradient, scale)
        second = np.sqrt(_mix(self.beta_2, before.vector.fisher**2, gradient**2, scale**2))
        noise = (1 - self.beta_1) ** 2 * aggregate.noise + (self.beta_1 * scale) ** 2 * before.noise
        return replace(aggregate, vector=_with(aggregate.vector, first, second), noise=noise, parts=())


class Momentum(ServerMomentum, Mean):
    """The sum over the cohort, with server momentum."""


class Adam(ServerAdam, Mean):
    """The sum over the cohort, with Adam on the server."""


def _mix(beta: float, before: Vector, now: Vector, scale: float) -> Vector:
    mixed: Vector = (beta * scale * before.astype(np.float64) + (1 - beta) * now).astype(np.float32)
    return mixed


def _with(vector: ExperienceVector, gradient: Vector, fisher: Vector) -> ExperienceVector:
    return replace(vector, gradient=gradient, fisher=fisher.astype(np.float32))
