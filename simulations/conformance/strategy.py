"""Conformance checks of strategies."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import cast

import numpy as np

from ...protocol.config import Scalar
from ...protocol.errors import VectorError
from ...protocol.experience import Aggregate, Contribution, Counters, ExperienceVector, VectorSpec
from ...strategies.experience import ExperienceStrategy
from ...strategies.server_side import ServerSide
from .checks import NotApplicable, demand, go_through_a_run, trials_of_a_run

SPEC = VectorSpec("tactics", 32, "vocabulary", "v1", ("one", "two"), 4, 50.0, 200.0)
DEVICES = 12
LEAST, MOST = 0.4, 2.5  # allowed range of an aggregate's norm relative to the sum over its cohort


@dataclass(frozen=True, slots=True)
class Named:
    """A strategy class, and its name in a run's configuration."""

    name: str
    kind: type[ExperienceStrategy]

    @property
    def settings(self) -> dict[str, Scalar]:
        """Settings of a run with this strategy: without noise, if it can do without."""
        mechanisms = self.kind.mechanisms
        mechanism = "none" if "none" in mechanisms else min(mechanisms)
        budget = 0.0 if mechanism == "none" else 8.0
        return {"strategy__name": self.name, "privacy__mechanism": mechanism, "privacy__epsilon": budget}

    def build(self) -> ExperienceStrategy:
        return self.kind(cast(ServerSide, _BeforeFirstExchange()))

    def aggregate(self, contributions: list[Contribution]) -> Aggregate:
        """Aggregate with this strategy; raises `NotApplicable` if it adds noise or accepts secure sums only."""
        if "none" not in self.kind.mechanisms:
            raise NotApplicable("it adds noise: only whole runs can be checked")
        if self.kind.aggregate is ExperienceStrategy.aggregate:
            raise AssertionError("it has no method `aggregate`")
        try:
            return self.build().aggregate(contributions)
        except VectorError as error:
            if len(contributions) > 1:
                raise NotApplicable(f"it refuses single vectors ({error})") from error
            raise


class _BeforeFirstExchange:
    """The server before the first exchange."""

    def collected_before(self, cycle: int, exchange: int) -> None:
        return None

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        return devices(1)[0].vector


def devices(count: int = DEVICES, seed: int = 0) -> list[Contribution]:
    """Return contributions of devices with similar gradients, in canonical order."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=SPEC.dimension)
    contributions = []
    for node in range(count):
        gradient = (centre + rng.normal(size=SPEC.dimension)).astype(np.float32)
        fisher = rng.uniform(0, 4, size=SPEC.dimension).astype(np.float32)
        counters = rng.integers(1, 9, size=SPEC.counters_shape).astype(np.float32)
        contributions.append(Contribution(node, ExperienceVector(SPEC, gradient, fisher, Counters(counters))))
    return sorted(contributions, key=lambda contribution: contribution.vector.to_array().tobytes())


def check_has_proper_options(named: Named) -> None:
    """Its options can be set by a run and are kept as attributes."""
    options = named.kind.options()
    built = named.build()
    for name, option in options.items():
        demand(hasattr(built, name), f"option {option.name} is not kept as attribute {name!r}, which `summary` shows")


def check_gives_a_usable_aggregate(named: Named) -> None:
    """The aggregate has the devices' specification, is finite, and has a non-negative Fisher diagonal."""
    aggregate = named.aggregate(devices())
    demand(isinstance(aggregate, Aggregate), f"`aggregate` gave a {type(aggregate).__name__}, not an Aggregate")
    demand(aggregate.vector.spec == SPEC, "the aggregate has another specification than the contributions")
    demand(np.isfinite(aggregate.vector.to_array()).all(), "the aggregate is not finite")
    demand((aggregate.vector.fisher >= 0).all(), "the Fisher diagonal is negative somewhere")
    demand(1 <= aggregate.cohort <= DEVICES, f"cohort is {aggregate.cohort}, with {DEVICES} devices")
    demand(aggregate.noise >= 0, f"noise must be a variance, not {aggregate.noise}")


def check_is_on_the_scale_of_a_sum(named: Named) -> None:
    """If all devices send the same vector, the aggregate is about this vector times its cohort."""
    one = devices(1)[0]
    aggregate = named.aggregate([replace(one, node_id=node) for node in range(DEVICES)])
    for name in ("gradient", "fisher"):
        part = getattr(aggregate.vector, name)
        scale = float(np.linalg.norm(part)) / (float(np.linalg.norm(getattr(one.vector, name))) * aggregate.cohort)
        demand(
            not part.any() or LEAST <= scale <= MOST,
            f"the {name} is {scale:.2g} of the sum over its cohort of {aggregate.cohort}: is it a mean?",
        )


def check_goes_with_its_contributions_carefully(named: Named) -> None:
    """It does not modify the contributions."""
    passed, expected = devices(), devices()
    named.aggregate(passed)
    for one, other in zip(passed, expected, strict=True):
        same = np.array_equal(one.vector.to_array(), other.vector.to_array())
        demand(same, "a contribution's arrays were modified in place: copy them first")


def check_repeats_itself(named: Named) -> None:
    """The same contributions give the same aggregate, to the bit."""
    one, other = (named.aggregate(devices()).vector.to_array() for _ in range(2))
    demand(np.array_equal(one, other), "the second aggregate differs: draw from a generator with `self.seed`")


def check_does_not_look_at_node_ids(named: Named) -> None:
    """The aggregate does not depend on node ids, which differ between runs."""
    renamed = [replace(item, node_id=10**9 - 7 * item.node_id) for item in devices()]
    one, other = (named.aggregate(group).vector.to_array() for group in (devices(), renamed))
    demand(np.array_equal(one, other), "other node ids gave another aggregate: order contributions by content")


def check_stands_a_single_device(named: Named) -> None:
    """A single contribution gives a finite aggregate or a VectorError."""
    try:
        aggregate = named.aggregate(devices(1))
    except VectorError:
        return
    demand(np.isfinite(aggregate.vector.to_array()).all(), "the aggregate of one device is not finite")


def check_goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices completes two cycles with it, reproducibly to the bit."""
    go_through_a_run(**named.settings)


def check_sums_the_answers_to_trials(named: Named) -> None:
    """It sums the answers to trials, so that a server without games can decide."""
    if named.kind.needs_games:
        raise NotApplicable("it needs a server that has games")
    trials = trials_of_a_run(**named.settings)
    demand(trials, "no candidate was tried: did `aggregate` give a gradient?")
    demand(any(trial.arrays["episodes"].any() for trial in trials), "no answer was used: see `aggregate_trial`")
