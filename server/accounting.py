"""Privacy accounting: epsilon from a noise multiplier, and back, with Flower's RDP accountant.

The adjacency relation is add-or-remove one device. Every release draws each device independently with the same
probability (Poisson sampling). Amplification by sampling holds against an adversary who sees models and aggregates but
not who took part. The server sees who takes part: for epsilon against the server, `sample` equals `population`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

from ..protocol.errors import PrivacyError

LARGEST_MULTIPLIER = 1000.0
HALVINGS = 40


@dataclass(frozen=True, slots=True)
class Release:
    """One release of a noisy sum, as the accountant sees it.

    Parameters
    ----------
    noise_multiplier
        Standard deviation of the noise, in clipping norms.
    sample
        Mean number of devices that are drawn.
    population
        Number of devices from which they are drawn.
    """

    noise_multiplier: float
    sample: int
    population: int


def epsilon_of(release: Release, count: int, delta: float) -> float:
    """Return the epsilon of `count` such releases at a delta."""
    with _quiet():
        import flwr.serverapp as flower

        methods = flower.SamplingMethod
        privacy = flower.PrivacyConfig(
            target_delta=delta,
            population_size=release.population,
            neighboring_relation=flower.NeighboringRelation.ADD_OR_REMOVE_ONE,
            sampling_method=methods.POISSON if release.sample < release.population else methods.NO_AMPLIFICATION,
        )
        accountant = flower.RdpAccountant(privacy)
        event = flower.GaussianPrivacyEvent(release.noise_multiplier, release.sample, release.population)
        accountant.compose(event, count)
        return float(accountant.get_epsilon(delta))


@lru_cache(maxsize=64)
def multiplier_for(epsilon: float, delta: float, sample: int, population: int, releases: int) -> float:
    """Return the smallest noise multiplier that keeps a number of releases within (epsilon, delta), by bisection.

    Raises
    ------
    PrivacyError
        If no noise multiplier up to `LARGEST_MULTIPLIER` does.
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
    """Undo the accounting library's changes to the root logger, and silence its warnings.

    It warns of every Renyi order that does not converge. It leaves such orders out, which only raises epsilon.
    """
    root, absl = logging.getLogger(), logging.getLogger("absl")
    handlers, level = list(root.handlers), absl.level
    absl.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.handlers[:] = handlers
        absl.setLevel(level)
