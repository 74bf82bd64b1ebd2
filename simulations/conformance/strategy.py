"""What a strategy must do."""

from __future__ import annotations

from dataclasses import dataclass, replace
from types import SimpleNamespace
from typing import cast

import numpy as np

from ...protocol.errors import VectorError
from ...protocol.experience import Aggregate, Contribution, Counters, ExperienceVector, VectorSpec
from ...strategies.experience import ExperienceStrategy
from ...strategies.life_cycle import ServerSide
from .checks import NotApplicable, demand
from .federation import go_through_a_run

SPEC = VectorSpec("tactics", 32, "vocabulary", "v1", ("one", "two"), 4, 50.0, 200.0)
DEVICES = 12
LEAST, MOST = 0.4, 2.5  # of the sum over as many devices as the aggregate says it stands for


@dataclass(frozen=True, slots=True)
class Named:
    """A strategy class, and the name by which a run finds it."""

    name: str
    kind: type[ExperienceStrategy]

    def build(self) -> ExperienceStrategy:
        return self.kind(cast(ServerSide, SimpleNamespace(rounds=_BeforeTheFirst())))

    def aggregate(self, contributions: list[Contribution]) -> Aggregate:
        """Aggregate, if this strategy looks at single vectors without noise."""
        if "none" not in self.kind.mechanisms:
            raise NotApplicable("it adds noise: only whole runs say something")
        if self.kind.aggregate is ExperienceStrategy.aggregate:
            raise AssertionError("it has no method `aggregate`")
        try:
            return self.build().aggregate(contributions)
        except VectorError as error:
            if len(contributions) > 1:
                raise NotApplicable(f"it refuses single vectors ({error})") from error
            raise


class _BeforeTheFirst:
    """The server's rounds before the first exchange."""

    def collected_before(self, cycle: int, exchange: int) -> None:
        return None

    def reference(self, cycle: int, exchange: int) -> ExperienceVector:
        return devices(1)[0].vector


def devices(count: int = DEVICES, seed: int = 0) -> list[Contribution]:
    """Contributions of devices that mostly agree, in the order in which a strategy gets them."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(size=SPEC.dimension)
    made = []
    for node in range(count):
        gradient = (centre + rng.normal(size=SPEC.dimension)).astype(np.float32)
        fisher = rng.uniform(0, 4, size=SPEC.dimension).astype(np.float32)
        counters = rng.integers(1, 9, size=SPEC.counters_shape).astype(np.float32)
        made.append(Contribution(node, ExperienceVector(SPEC, gradient, fisher, Counters(counters))))
    return sorted(made, key=lambda each: each.vector.to_array().tobytes())


def has_proper_options(named: Named) -> None:
    """Its options have names, types and defaults that a run can give."""
    options = named.kind.options()
    built = named.build()
    for name, option in options.items():
        demand(hasattr(built, name), f"option {option.name} is not kept as attribute {name!r}, which `summary` shows")


def gives_a_usable_aggregate(named: Named) -> None:
    """An aggregate has the devices' specification, is finite, and its Fisher diagonal is not negative."""
    aggregate = named.aggregate(devices())
    demand(isinstance(aggregate, Aggregate), f"`aggregate` gave a {type(aggregate).__name__}, not an Aggregate")
    demand(aggregate.vector.spec == SPEC, "the aggregate has another specification than the contributions")
    demand(np.isfinite(aggregate.vector.to_array()).all(), "the aggregate is not finite")
    demand((aggregate.vector.fisher >= 0).all(), "the Fisher diagonal is negative somewhere")
    demand(1 <= aggregate.cohort <= DEVICES, f"cohort is {aggregate.cohort}, with {DEVICES} devices")
    demand(aggregate.noise >= 0, f"noise is a variance, and not {aggregate.noise}")


def is_on_the_scale_of_a_sum(named: Named) -> None:
    """When all devices say the same, the aggregate is about that, times its cohort."""
    one = devices(1)[0]
    aggregate = named.aggregate([replace(one, node_id=node) for node in range(DEVICES)])
    for name in ("gradient", "fisher"):
        part = getattr(aggregate.vector, name)
        scale = float(np.linalg.norm(part)) / (float(np.linalg.norm(getattr(one.vector, name))) * aggregate.cohort)
        demand(
            not part.any() or LEAST <= scale <= MOST,
            f"the {name} is {scale:.2g} of the sum over its cohort of {aggregate.cohort}: is it a mean?",
        )


def goes_with_its_contributions_carefully(named: Named) -> None:
    """It leaves the contributions as they were."""
    given, before = devices(), devices()
    named.aggregate(given)
    for one, other in zip(given, before, strict=True):
        same = np.array_equal(one.vector.to_array(), other.vector.to_array())
        demand(same, "a contribution's arrays were changed in place: copy before you change")


def repeats_itself(named: Named) -> None:
    """The same contributions give the same aggregate to the bit."""
    one, other = (named.aggregate(devices()).vector.to_array() for _ in range(2))
    demand(np.array_equal(one, other), "the second time it was another: draw from a generator with `self.seed`")


def does_not_look_at_node_ids(named: Named) -> None:
    """Node ids, which differ from run to run, change nothing."""
    renamed = [replace(each, node_id=10**9 - 7 * each.node_id) for each in devices()]
    one, other = (named.aggregate(group).vector.to_array() for group in (devices(), renamed))
    demand(np.array_equal(one, other), "other node ids gave another aggregate: order by content instead")


def stands_a_single_device(named: Named) -> None:
    """A single contribution gives an aggregate, or a VectorError that says no."""
    try:
        aggregate = named.aggregate(devices(1))
    except VectorError:
        return
    demand(np.isfinite(aggregate.vector.to_array()).all(), "the aggregate of one device is not finite")


def goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices goes through two cycles with it, and repeats to the bit."""
    mechanisms = named.kind.mechanisms
    mechanism = "none" if "none" in mechanisms else min(mechanisms)
    budget = 0.0 if mechanism == "none" else 8.0
    go_through_a_run(strategy__name=named.name, privacy__mechanism=mechanism, privacy__epsilon=budget)


CHECKS = (
    has_proper_options,
    gives_a_usable_aggregate,
    is_on_the_scale_of_a_sum,
    goes_with_its_contributions_carefully,
    repeats_itself,
    does_not_look_at_node_ids,
    stands_a_single_device,
    goes_through_whole_runs,
)
