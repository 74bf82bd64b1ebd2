"""One-run audit of the release mechanism with canaries.

A canary is an extra device with a coordinate of its own, included in a release with probability one half. It sends ten
times the clipping norm and adds no noise, which makes it as visible as possible. The noise is that of the plan's
minimum number of devices. Two releases are made: noise that is reused cancels in their difference.

The attacker guesses which canaries were in a sum. `guess_bound` makes no assumption about the noise: an (epsilon,
delta) private mechanism limits the number of correct guesses (Steinke, Nasr, Jagielski 2023, arXiv 2305.08846, theorem
5.2). `gaussian_bound` assumes Gaussian scores and compares the two means (after Andrew et al. 2023, arXiv 2302.03098),
which gives a tighter bound where the assumption holds.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import optimize, stats

from ...protocol.privacy.plan import Integers, Part, PrivacyPlan
from ...protocol.secagg.masks import cell_type
from ...server.accounting import Release, epsilon_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
LOUD = 10.0
SHARES = (0.02, 0.1, 0.3)  # fractions of canaries to guess; the largest bound is used, with a third of the error each
LARGEST = 100.0


@dataclass(frozen=True, slots=True)
class Mechanism:
    """The mechanism under audit, by default that of the devices; apart from its plan, so that deviations are found."""

    plan: PrivacyPlan

    def contribution(self, values: Mapping[str, Floats]) -> Integers:
        """Return what a device's vector adds to the sum, without noise."""
        return self.plan.quantised(values)

    def noise(self) -> Integers:
        """Return the noise of one device."""
        return self.plan.noise()


@dataclass(frozen=True, slots=True)
class Bound:
    """Result of one attack: two lower bounds on epsilon, and the promised epsilon for the same number of releases."""

    attack: str
    claimed: float
    guesses: float
    gaussian: float

    @property
    def holds(self) -> bool:
        """Whether both bounds are at most the promised epsilon."""
        return max(self.guesses, self.gaussian) <= self.claimed


def audited(plan: PrivacyPlan, cells: int) -> PrivacyPlan:
    """Return the plan for a vector with one coordinate per canary, in a single part."""
    return replace(plan, parts=(Part("gradient", cells, plan.parts[0].norm, 1.0),), bits=32)


def audit_mechanism(plan: PrivacyPlan, mechanism: Mechanism, delta: float, confidence: float, seed: int) -> list[Bound]:
    """Make two releases, and attack the first one and the difference of both."""
    rng = np.random.default_rng(seed)
    inside = rng.random((2, plan.cells)) < 0.5
    norm = plan.parts[0].norm
    releases = np.stack([_release(plan, mechanism, included) for included in inside]) / norm
    differs = inside[0] != inside[1]
    attacks = {
        "one release": (releases[0] - 0.5, inside[0]),
        "difference of two releases": ((releases[0] - releases[1])[differs], inside[0][differs]),
    }
    bounds = []
    for count, (name, (scores, included)) in enumerate(attacks.items(), start=1):
        claimed = epsilon_of(Release(plan.noise_multiplier, 1, 1), count, delta)
        found = (bound(scores, included, delta, confidence) for bound in (guess_bound, gaussian_bound))
        bounds.append(Bound(name, claimed, *found))
    return bounds


def _release(plan: PrivacyPlan, mechanism: Mechanism, inside: Flags) -> Floats:
    total = np.zeros(plan.cells, dtype=np.int64)
    for _ in range(plan.minimum):
        total += mechanism.noise()
    for canary in np.flatnonzero(inside):
        values = np.zeros(plan.cells)
        values[canary] = LOUD * plan.parts[0].norm
        total += mechanism.contribution({"gradient": values})
    return plan.decode(total.astype(cell_type(plan.bits)))["gradient"]


def guess_bound(scores: Floats, inside: Flags, delta: float, confidence: float) -> float:
    """Bound epsilon by the number of correct guesses about the canaries with the most extreme scores.

    Parameters
    ----------
    scores
        One score per canary; positive means a guess that it is included.
    inside
        Which canaries were included.
    """
    order, error = np.argsort(-np.abs(scores)), (1 - confidence) / len(SHARES)
    bounds = [0.0]
    for share in SHARES:
        guessed = order[: max(1, int(share * len(scores)))]
        correct = int(((scores[guessed] > 0) == inside[guessed]).sum())
        bounds.append(_largest_refuted(len(scores), len(guessed), correct, delta, error))
    return max(bounds)


def gaussian_bound(scores: Floats, inside: Flags, delta: float, confidence: float) -> float:
    """Bound epsilon by the lower confidence limit of the distance between the two means, in standard deviations."""
    a, b = scores[inside], scores[~inside]
    spread = math.sqrt((a.var(ddof=1) * (len(a) - 1) + b.var(ddof=1) * (len(b) - 1)) / (len(scores) - 2))
    if spread == 0:
        return LARGEST if a.mean() > b.mean() else 0.0
    distance = float(a.mean() - b.mean()) / spread
    error = math.sqrt(1 / len(a) + 1 / len(b) + distance**2 / (2 * len(scores)))
    return epsilon_of_distance(distance - stats.norm.ppf(confidence) * error, delta)


def epsilon_of_distance(distance: float, delta: float) -> float:
    """Epsilon of two unit Gaussians whose means are `distance` apart (Dong et al. 2022, arXiv 1905.02383)."""

    def excess(epsilon: float) -> float:
        near, far = distance / 2 - epsilon / distance, -distance / 2 - epsilon / distance
        return float(stats.norm.cdf(near) - math.exp(epsilon + stats.norm.logcdf(far))) - delta

    if distance <= 0 or excess(0.0) <= 0:
        return 0.0
    if excess(LARGEST) > 0:
        return LARGEST
    return float(optimize.brentq(excess, 0.0, LARGEST))


def _largest_refuted(canaries: int, guesses: int, correct: int, delta: float, error: float) -> float:
    """Largest epsilon for which the p-value of so many correct guesses is at most `error`, by bisection."""
    low, high = 0.0, LARGEST
    if _p_value(canaries, guesses, correct, low, delta) > error:
        return 0.0
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if _p_value(canaries, guesses, correct, middle, delta) <= error else (low, middle)
    return low


def _p_value(canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Bound on the probability of at least so many correct guesses under an (epsilon, delta) private mechanism."""
    chance = 1 / (1 + math.exp(-epsilon))
    exact = stats.binom.pmf(np.arange(correct - 1, -1, -1), guesses, chance).cumsum()
    worst = float((exact / np.arange(1, correct + 1)).max()) if correct else 0.0
    return min(1.0, float(stats.binom.sf(correct - 1, guesses, chance)) + worst * delta * 2 * canaries)
