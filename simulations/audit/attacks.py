"""Attacks on what a server could look at: a vector, a sum, a noisy sum, and the adapter of the next version.

That adapter is what a noisy sum turns into: without a language model the context itself; LoRA weights are made of it
and of public games alone, and can say no more than it does.

The attacker knows all but whether its target took part, or what the target did: every vector of a pool of devices, the
plan, and the size of the cohort. Every attack is also made where it must succeed, on a single vector.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from ...codecs.natural_step import natural_step
from ...protocol.config import ContextConfig
from ...protocol.experience import Aggregate, ExperienceVector, clip
from ...protocol.privacy.plan import PrivacyPlan

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
FALSE_ALARMS = 0.001
VIEWS = ("single vector", "sum", "noisy sum", "adapter of the next version")


@dataclass(frozen=True, slots=True)
class Finding:
    """How well an attack on a view did."""

    attack: str
    view: str
    auroc: float
    detected: float

    @property
    def exposed(self) -> bool:
        """Whether it does visibly better than a coin."""
        return self.auroc > 0.55


@dataclass(frozen=True)
class Pool:
    """Devices to attack: their vectors, and what each of them played."""

    vectors: Sequence[ExperienceVector]
    families: Sequence[str]

    @cached_property
    def gradients(self) -> Floats:
        """Clipped gradients, shape (devices, dimension)."""
        rows = [clip(each.gradient, each.spec.clipping_norm) for each in self.vectors]
        return np.stack(rows).astype(np.float64)

    @cached_property
    def fisher(self) -> Floats:
        """Mean Fisher diagonal of a device, shape (dimension,)."""
        fisher: Floats = np.stack([each.fisher for each in self.vectors]).mean(axis=0).astype(np.float64)
        return fisher


def auroc(scores: Floats, positive: Flags) -> float:
    """Chance that a positive case scores higher than a negative one; ties count half."""
    both = np.concatenate([scores[positive], scores[~positive]])
    _, places, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[places]
    above = ranks[: positive.sum()].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(above / (positive.sum() * (~positive).sum()))


def detected(scores: Floats, positive: Flags, false_alarms: float = FALSE_ALARMS) -> float:
    """Share of positive cases found by a threshold that this share of the negative ones passes."""
    negative = np.sort(scores[~positive])
    allowed = int(false_alarms * len(negative))
    return float((scores[positive] > negative[len(negative) - 1 - allowed]).mean())


def membership(pool: Pool, plan: PrivacyPlan, chance: float, trials: int, seed: int) -> list[Finding]:
    """Is this device in the fleet? The attacker compares what it sees with the device's own vector.

    Parameters
    ----------
    chance
        Of a member of the fleet to be drawn into the cohort that is seen; 1 asks about the cohort instead. A single
        vector is always that of a device that was drawn.
    """
    gradients = pool.gradients

    def trial(rng: np.random.Generator, view: str, member: bool) -> float:
        target, cohort = _draw(pool, plan, rng)
        last = target if member and (view == VIEWS[0] or rng.random() < chance) else _other(pool, target, cohort, rng)
        own = gradients[target]
        if view == VIEWS[0]:
            return -float(np.linalg.norm(gradients[last] - own))
        seen = _view(view, gradients[[*cohort, last]], pool, plan, rng)
        return float(seen @ own / max(np.linalg.norm(own), 1e-9))

    name = "membership in the fleet" if chance < 1 else "membership in a cohort"
    return [_finding(name, view, trial, trials, seed) for view in VIEWS]


def attribute(pool: Pool, plan: PrivacyPlan, trials: int, seed: int) -> list[Finding]:
    """Which family did the last device play? The attacker knows every family's mean vector."""
    names = sorted(set(pool.families))
    where = {name: [i for i, family in enumerate(pool.families) if family == name] for name in names}
    gradients = pool.gradients
    direction = gradients[where[names[0]]].mean(axis=0) - gradients[where[names[1]]].mean(axis=0)

    def trial(rng: np.random.Generator, view: str, first: bool) -> float:
        _, cohort = _draw(pool, plan, rng)
        target = int(rng.choice(where[names[0] if first else names[1]]))
        seen = gradients[target] if view == VIEWS[0] else _view(view, gradients[[*cohort, target]], pool, plan, rng)
        return float(seen @ direction)

    return [_finding("which family a device played", view, trial, trials, seed) for view in VIEWS]


def _finding(
    attack: str, view: str, trial: Callable[[np.random.Generator, str, bool], float], trials: int, seed: int
) -> Finding:
    rng = np.random.default_rng([seed, VIEWS.index(view)])
    positive = rng.random(trials) < 0.5
    scores = np.array([trial(rng, view, bool(flag)) for flag in positive])
    return Finding(attack, view, auroc(scores, positive), detected(scores, positive))


def _draw(pool: Pool, plan: PrivacyPlan, rng: np.random.Generator) -> tuple[int, list[int]]:
    """A target, and the rest of a cohort of the smallest size that a plan allows."""
    drawn = rng.choice(len(pool.vectors), size=min(plan.minimum, len(pool.vectors) - 1), replace=False).tolist()
    return drawn[0], drawn[1:]


def _other(pool: Pool, target: int, cohort: Sequence[int], rng: np.random.Generator) -> int:
    left = sorted(set(range(len(pool.vectors))) - {target, *cohort})
    return int(rng.choice(left))


def _view(view: str, gradients: Floats, pool: Pool, plan: PrivacyPlan, rng: np.random.Generator) -> Floats:
    """What can be seen of a cohort. Attacks run often, so noise is continuous: at this width that is the same."""
    total = gradients.sum(axis=0)
    if view == "sum":
        return np.asarray(total)
    variance = plan.variance("gradient", plan.minimum)
    total = total + rng.normal(scale=np.sqrt(variance), size=total.shape)
    if view == "noisy sum":
        return np.asarray(total)
    vector = pool.vectors[0]
    seen = ExperienceVector.from_parts(vector.spec, {"gradient": total, "fisher": pool.fisher * len(gradients)})
    return natural_step(Aggregate(seen, len(gradients), variance), ContextConfig()).astype(np.float64)
