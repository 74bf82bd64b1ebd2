"""Versions, and contenders: what a gate tries, and what is measured."""

from __future__ import annotations

from dataclasses import dataclass

from ...policies.policy import Policy
from ..learner import Adapter
from .mixture import Mixture


@dataclass(frozen=True, slots=True)
class Version:
    """The policy version that devices play: its name and its adapter."""

    name: str
    adapter: Adapter


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
    """

    adapter: Adapter
    policies: tuple[Policy, ...]
    contexts: Mixture | None = None
