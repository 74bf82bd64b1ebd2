"""Membership and attribute inference on what a server can observe.

The views are a single vector, an exact sum, a noisy sum, and the adapter of the next version. The adapter is a function
of the noisy sum and of public games. It is attacked without a language model, where it is the context itself; LoRA
weights are derived from that context and cannot reveal more.

The attacker knows every vector of a pool of devices, the plan and the size of the cohort. It does not know whether the
target took part, or which family the target played. Each attack is also run on a single vector, where it must succeed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ...client.app import streams
from ...codecs.encoder import encode, load_encoder
from ...codecs.natural_step import natural_step
from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy, uniform_policy
from ...games.partition import client_games
from ...games.player import play_episodes
from ...protocol.config import ContextConfig, RunConfig
from ...protocol.experience import Aggregate, ExperienceVector, VectorSpec, clip
from ...protocol.play import specs_from_text
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.trials import TrialTerms, answer_of

Floats = NDArray[np.float64]
Flags = NDArray[np.bool_]
FALSE_ALARMS = 0.001
VIEWS = ("single vector", "sum", "noisy sum", "adapter of the next version")
# Families in pure Python, so that an audit takes minutes; the protections do not depend on the family.
FAMILIES = "frozen-lake size=4 turns=12; sokoban turns=8"


@dataclass(frozen=True, slots=True)
class Finding:
    """Success of an attack on a view: AUROC, and true positive rate at the false positive rate `FALSE_ALARMS`."""

    attack: str
    view: str
    auroc: float
    detected: float

    @property
    def exposed(self) -> bool:
        """Whether the attack is clearly better than chance."""
        return self.auroc > 0.55


@dataclass(frozen=True)
class Pool:
    """Devices to attack: the vector of each, and the family of games that it played.

    `views` are what can be observed of them, and `what` is said of the attacks on them.
    """

    vectors: Sequence[ExperienceVector]
    families: Sequence[str]
    views: Sequence[str] = VIEWS
    what: str = ""

    @cached_property
    def gradients(self) -> Floats:
        """Clipped gradients, shape (devices, dimension)."""
        rows = [clip(vector.gradient, vector.spec.clipping_norm) for vector in self.vectors]
        return np.stack(rows).astype(np.float64)

    @cached_property
    def fisher(self) -> Floats:
        """Mean Fisher diagonal of a device, shape (dimension,)."""
        fisher: Floats = np.stack([vector.fisher for vector in self.vectors]).mean(axis=0).astype(np.float64)
        return fisher


def play_pool(config: RunConfig, devices: int, cache: Path) -> Pool:
    """Let devices play with the uniform policy, and encode the trajectories of each."""
    specs, encoder = specs_from_text(FAMILIES), load_encoder("tactics")
    policy = uniform_policy()
    names, codec = tuple(spec.family for spec in specs), config.codec
    spec = VectorSpec(
        encoder.name, encoder.dimension, encoder.vocabulary, policy.version, names, 12, codec.clipping_norm,
        codec.fisher_norm,
    )  # fmt: skip
    baseline, vectors, families = np.zeros((len(names), 12), np.float32), [], []
    for device in range(devices):
        family_spec = specs[device % len(specs)]
        games = client_games((family_spec,), device, devices, config.games.per_client, 1, "iid", config.seed)
        played = play_episodes(policy, games, streams(config.seed, 1, device, len(games)), cache)
        vectors.append(encode(encoder, policy, played, spec, baseline, codec.discount))
        families.append(family_spec.family)
    return Pool(vectors, families)


def trial_pool(config: RunConfig, devices: int, cache: Path) -> Pool:
    """Let devices answer a trial of a policy that goes where it has not been, against uniform play."""
    specs = specs_from_text(FAMILIES)
    names, answers, families = tuple(spec.family for spec in specs), [], []
    spec = TrialTerms.of_run(config).spec("audit", names)
    weights = np.zeros(DIMENSION, np.float32)
    weights[::2] = 1.0
    policies = uniform_policy(), TacticsPolicy("tried", weights)
    for device in range(devices):
        family_spec, count = specs[device % len(specs)], config.trial.games
        games = client_games((family_spec,), device, devices, count, 1, "iid", config.seed)
        seeds = streams(config.seed, 1, device, count)
        before, after = (play_episodes(policy, games, seeds, cache) for policy in policies)
        answers.append(answer_of(spec, before, after))
        families.append(family_spec.family)
    return Pool(answers, families, VIEWS[:3], " of a trial")  # a decision comes of a trial, and no version


def auroc(scores: Floats, positive: Flags) -> float:
    """Area under the ROC curve: the probability that a positive trial scores above a negative one; ties count half."""
    both = np.concatenate([scores[positive], scores[~positive]])
    _, inverse, counts = np.unique(both, return_inverse=True, return_counts=True)
    ranks = (counts.cumsum() - (counts - 1) / 2)[inverse]
    mann_whitney_u = ranks[: positive.sum()].sum() - positive.sum() * (positive.sum() + 1) / 2
    return float(mann_whitney_u / (positive.sum() * (~positive).sum()))


def detected(scores: Floats, positive: Flags) -> float:
    """True positive rate at the threshold with the false positive rate `FALSE_ALARMS`."""
    negative = np.sort(scores[~positive])
    allowed = int(FALSE_ALARMS * len(negative))
    return float((scores[positive] > negative[len(negative) - 1 - allowed]).mean())


def membership(pool: Pool, plan: PrivacyPlan, chance: float, trials: int, seed: int) -> list[Finding]:
    """Membership inference: score the observation by its similarity to the target's vector.

    Parameters
    ----------
    chance
        Probability that a member of the fleet is drawn into the observed cohort; 1 infers membership in the cohort
        instead. A single vector is always that of a drawn device.
    """
    gradients = pool.gradients

    def trial(rng: np.random.Generator, view: str, member: bool) -> float:
        target, cohort = _draw(pool, plan, rng)
        last = target if member and (view == VIEWS[0] or rng.random() < chance) else _other(pool, target, cohort, rng)
        gradient = gradients[target]
        if view == VIEWS[0]:
            return -float(np.linalg.norm(gradients[last] - gradient))
        observed = _view(view, gradients[[*cohort, last]], pool, plan, rng)
        return float(observed @ gradient / max(np.linalg.norm(gradient), 1e-9))

    name = f"membership in {'the fleet' if chance < 1 else 'a cohort'}{pool.what}"
    return [_finding(name, view, trial, trials, seed) for view in pool.views]


def attribute(pool: Pool, plan: PrivacyPlan, trials: int, seed: int) -> list[Finding]:
    """Attribute inference: which family the target played. The attacker knows the mean vector of each family."""
    names = sorted(set(pool.families))
    players = {name: [i for i, family in enumerate(pool.families) if family == name] for name in names}
    gradients = pool.gradients
    direction = gradients[players[names[0]]].mean(axis=0) - gradients[players[names[1]]].mean(axis=0)

    def trial(rng: np.random.Generator, view: str, first: bool) -> float:
        _, cohort = _draw(pool, plan, rng)
        target = int(rng.choice(players[names[0] if first else names[1]]))
        observed = gradients[target] if view == VIEWS[0] else _view(view, gradients[[*cohort, target]], pool, plan, rng)
        return float(observed @ direction)

    return [_finding(f"which family a device played{pool.what}", view, trial, trials, seed) for view in pool.views]


def _finding(
    attack: str, view: str, trial: Callable[[np.random.Generator, str, bool], float], trials: int, seed: int
) -> Finding:
    rng = np.random.default_rng([seed, VIEWS.index(view)])
    positive = rng.random(trials) < 0.5
    scores = np.array([trial(rng, view, bool(flag)) for flag in positive])
    return Finding(attack, view, auroc(scores, positive), detected(scores, positive))


def _draw(pool: Pool, plan: PrivacyPlan, rng: np.random.Generator) -> tuple[int, list[int]]:
    """Draw a target, and the other devices of a cohort of the plan's minimum size."""
    drawn = rng.choice(len(pool.vectors), size=min(plan.minimum, len(pool.vectors) - 1), replace=False).tolist()
    return drawn[0], drawn[1:]


def _other(pool: Pool, target: int, cohort: Sequence[int], rng: np.random.Generator) -> int:
    """Draw a device that is neither the target nor in the cohort."""
    return int(rng.choice(sorted(set(range(len(pool.vectors))) - {target, *cohort})))


def _view(view: str, gradients: Floats, pool: Pool, plan: PrivacyPlan, rng: np.random.Generator) -> Floats:
    """Return what is observed of a cohort. For speed, noise is continuous; at this scale the discrete one matches."""
    total = gradients.sum(axis=0)
    if view == "sum":
        return np.asarray(total)
    variance = plan.variance("gradient", plan.minimum)
    total = total + rng.normal(scale=np.sqrt(variance), size=total.shape)
    if view == "noisy sum":
        return np.asarray(total)
    vector = pool.vectors[0]
    noisy = ExperienceVector.from_parts(vector.spec, {"gradient": total, "fisher": pool.fisher * len(gradients)})
    return natural_step(Aggregate(noisy, len(gradients), variance), ContextConfig()).astype(np.float64)
