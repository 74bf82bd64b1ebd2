"""What noise costs: epsilon from a noise multiplier, and back, by Flower's accountant of Renyi differential privacy.

Neighbouring fleets differ in one device, which is there or not. Every release draws each device with the same chance,
independently (Poisson sampling); the guarantee with that chance holds against whoever sees models and aggregates, but
not who took part. Against the server, which does see it, `sample` is the whole `population`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..protocol.errors import PrivacyError

LARGEST_MULTIPLIER = 1000.0
HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Release:
    """Releases of one kind.

    Parameters
    ----------
    noise_multiplier
        Standard deviation of the noise, in clipping norms.
    sample, population
        Devices that are drawn on average, and out of how many.
    """

    noise_multiplier: float
    sample: int
    population: int


def epsilon_of(release: Release, count: int, delta: float) -> float:
    """Epsilon of some releases at a delta."""
    with _quiet():
        accountant = _accountant(release, delta)
        accountant.compose(_event(release), count)
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=64)
def multiplier_for(epsilon: float, delta: float, sample: int, population: int, releases: int) -> float:
    """Smallest noise multiplier that keeps some releases within a budget.

    Raises
    ------
    PrivacyError
        If none does.
    """
    low, high = 0.0, LARGEST_MULTIPLIER
    if epsilon_of(Release(high, sample, population), releases, delta) > epsilon:
        raise PrivacyError(f"no noise keeps {releases} releases within epsilon {epsilon:g} at delta {delta:g}")
    for _ in range(HALVINGS):
        middle = (low * high) ** 0.5 if low else high / 4
        if high / max(middle, 1e-12) < 1.0005:
            break
        if epsilon_of(Release(middle, sample, population), releases, delta) <= epsilon:
            high = middle
        else:
            low = middle
    return high


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library from taking over the process's log, and from warning of every order that does not converge.

    It leaves such orders out, which is safe.
    """
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, level = list(root.handlers), absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        absl.setLevel(level)


def _accountant(release: Release, delta: float) -> Any:
    from flwr.serverapp import NeighboringRelation, PrivacyConfig, RdpAccountant, SamplingMethod

    sampling = SamplingMethod.POISSON if release.sample < release.population else SamplingMethod.NO_AMPLIFICATION
    return RdpAccountant(
        PrivacyConfig(
            target_delta=delta,
            population_size=release.population,
            neighboring_relation=NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=sampling,
        )
    )


def _event(release: Release) -> Any:
    from flwr.serverapp import GaussianPrivacyEvent

    return GaussianPrivacyEvent(release.noise_multiplier, release.sample, release.population)
