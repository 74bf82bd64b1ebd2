"""Conformance checks of policy backends, on the device and on the server."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...codecs.context import no_context
from ...codecs.tactics.coordinates import DIMENSION, tilt
from ...codecs.tactics.policy import TiltedPolicy
from ...policies.abilities import ABILITIES, abilities_of
from ...policies.backend import Backend
from ...policies.policy import LogProbs, Policy
from ...protocol.config import RunConfig
from ...protocol.experience import WIRE_TYPES
from ...server.learner import DistillationTask, Learner
from ...server.learner_registry import make_learner
from .checks import NotApplicable, demand, go_through_a_run, situations, turns

CACHE = Path("nowhere")
Adapter = Mapping[str, NDArray[Any]]


@dataclass(frozen=True)
class Named:
    """A backend, and its name in a run's configuration."""

    name: str
    backend: Backend

    @cached_property
    def config(self) -> RunConfig:
        config = RunConfig()
        return replace(config, policy=replace(config.policy, backend=self.name))

    @cached_property
    def learner(self) -> Learner:
        """The backend's learner."""
        if self.name == "torch":
            raise NotApplicable("it needs the base model: its own tests cover it")
        learner = make_learner(self.config, CACHE)
        learner.load()
        return learner

    @cached_property
    def adapter(self) -> Adapter:
        """The adapter of the first version."""
        return self.learner.warm_start(list(turns()), lambda steps: None)

    def load(self, adapter: Adapter) -> Policy:
        """Load a version as a device does."""
        version = self.learner.policy(adapter).version
        return self.backend.load(self.config.policy, adapter, version, CACHE)


def check_says_what_it_can(named: Named) -> None:
    """It names known abilities, and the policies that it loads say the same."""
    abilities = named.backend.abilities
    demand(abilities <= ABILITIES, f"abilities {set(abilities)}; known are {', '.join(sorted(ABILITIES))}")
    said = abilities_of(named.load(named.adapter))
    demand(said == abilities, f"the backend has the abilities {set(abilities)}, but its policies say {set(said)}")


def check_adapters_travel(named: Named) -> None:
    """Its adapter is a non-empty set of finite float16 or float32 arrays."""
    demand(named.adapter, "the first adapter holds no arrays")
    for name, array in named.adapter.items():
        demand(array.dtype in WIRE_TYPES, f"array {name!r} is {array.dtype}, not float16 or float32")
        demand(np.isfinite(array).all(), f"array {name!r} is not finite")


def check_both_sides_have_the_same_version(named: Named) -> None:
    """Device and server have the same version and answers for an adapter; another adapter is another version."""
    here, there = named.learner.policy(named.adapter), named.load(named.adapter)
    demand(here.version == there.version, f"the server says {here.version!r} and the device {there.version!r}")
    for one, other in zip(here.score(situations()), there.score(situations()), strict=True):
        demand(np.allclose(one, other, atol=1e-4), "server and device answer differently")
    changed = {name: array + array.dtype.type(0.5) for name, array in named.adapter.items()}
    demand(named.learner.policy(changed).version != here.version, "another adapter has the same version")


def check_answers_are_probabilities(named: Named) -> None:
    """The probabilities of the admissible commands add up to one, and prompts have a length."""
    policy = named.load(named.adapter)
    for answer, situation in zip(policy.score(situations()), situations(), strict=True):
        demand(answer.shape == (len(situation.admissible),), f"an answer has shape {answer.shape}")
        demand(answer.dtype == np.float32, f"an answer is {answer.dtype}, not float32")
        demand(abs(float(np.exp(answer.astype(np.float64)).sum()) - 1) < 1e-4, "probabilities do not add up to one")
    tokens = policy.tokens(situations())
    demand(len(tokens) == len(situations()) and min(tokens) >= 0, f"tokens are {tokens[:3]}...")


def check_batches_change_nothing(named: Named) -> None:
    """An answer does not depend on what else is asked, and the second one is the first."""
    policy, some = named.load(named.adapter), situations()[:6]
    together = policy.score(some)
    for one, situation in zip(together, some, strict=True):
        demand(np.allclose(one, policy.score([situation])[0], atol=1e-4), "alone it answers differently")


def check_learns_what_it_is_told(named: Named) -> None:
    """Distillation reduces the divergence from a teacher that prefers some commands."""
    weights = np.zeros(DIMENSION, np.float32)
    weights[::2] = 1.0
    seen = [
        replace(turn, log_probs=answer) for turn, answer in zip(turns(), _answers(named, named.adapter), strict=True)
    ]
    targets = [tilt(turn.log_probs, turn.situation, weights) for turn in seen]
    context = replace(no_context(DIMENSION), weights=weights)

    def under(policy: Policy) -> Policy:
        return TiltedPolicy(policy, weights)

    task = DistillationTask(context, seen, targets, [under] * len(seen), None, seed=0)
    distilled = named.learner.distil(named.adapter, task, lambda steps: None).adapter
    before, after = (_mean_kl(targets, _answers(named, adapter)) for adapter in (named.adapter, distilled))
    demand(after < 0.9 * before, f"mean KL to the teacher was {before:.3f} before distillation and {after:.3f} after")


def check_goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices completes two cycles with it, reproducibly to the bit."""
    _ = named.learner
    go_through_a_run(policy__backend=named.name)


def _answers(named: Named, adapter: Adapter) -> list[LogProbs]:
    return named.load(adapter).score(situations())


def _mean_kl(teacher: list[LogProbs], student: list[LogProbs]) -> float:
    """Return the mean KL(teacher || student), in nats."""
    return float(np.mean([(np.exp(t) * (t - s)).sum() for t, s in zip(teacher, student, strict=True)]))
