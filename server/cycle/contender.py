"""Versions, how far one has got in the fleet, and contenders: what a gate tries, and what is measured."""

from __future__ import annotations

from dataclasses import dataclass, replace

from ...codecs.codec import Codec
from ...policies.policy import Policy
from ...protocol.config import RunConfig
from ...protocol.rollout import ALL, stages_of
from ..learner import Adapter
from .mixture import Mixture


@dataclass(frozen=True, slots=True)
class Version:
    """The policy version that devices play: its name and its adapter."""

    name: str
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class Rollout:
    """How far a version has got.

    Parameters
    ----------
    before
        The version that it has replaced, which the rest of the fleet still has.
    stages
        Shares of the fleet.
    stage
        Index of the present one, which is not the last.
    """

    before: Version
    stages: tuple[float, ...]
    stage: int = 0

    @property
    def share(self) -> float:
        """Share of the fleet that the version goes to."""
        return self.stages[self.stage]

    @property
    def next(self) -> Rollout | None:
        """The next stage; None if that is the whole fleet."""
        after = replace(self, stage=self.stage + 1)
        return after if after.share < ALL else None

    def __str__(self) -> str:
        return f"stage {self.stage + 1} of {len(self.stages)}, {self.share:.3g} of the fleet"


def begin(config: RunConfig, before: Version) -> Rollout | None:
    """Return the first stage of a version; None if it goes to the whole fleet at once."""
    stages = stages_of(config.rollout.stages)
    return Rollout(before, stages) if stages[0] < ALL else None


@dataclass(frozen=True, slots=True, eq=False)
class Contender:
    """What a gate tries, and what is measured on held-out games.

    Parameters
    ----------
    adapter
        Weights of the version.
    policies
        The version itself, or the version with each of the contexts.
    contexts
        None for a version without a context. One of several is drawn for each game.
    codec
        Made the policies with contexts; None without them.
    """

    adapter: Adapter
    policies: tuple[Policy, ...]
    contexts: Mixture | None = None
    codec: Codec | None = None
