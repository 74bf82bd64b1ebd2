"""The device half of a codec in one method: features of a situation's commands, whose weights a context holds.

    pi_w(a | x) = pi(a | x) exp(w . phi(x, a)) / Z(x)

A subclass names the coordinates of phi and computes it from a situation; the rest follows (`fedoel.codecs.log_linear`).
"""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ...policies.policy import LogProbs, Policy
from ...protocol.errors import ConfigError, VectorError
from ...protocol.experience import Floats, Vector
from ...protocol.play import Turn
from ...protocol.situation import Situation
from ..log_linear import gradient_and_fisher, tilted

Phi = Callable[[Situation], NDArray[np.float32]]


class FeatureEncoder(ABC):
    """Base of codecs whose context is one weight for each named feature of a command.

    Attributes
    ----------
    name
        Name of the codec.
    coordinates
        Names of the features, at least one, in the order of the columns of `features`: reports show them as lessons,
        and devices and server must agree on them.
    """

    name: ClassVar[str]
    coordinates: ClassVar[Sequence[str]]
    required_abilities: frozenset[str] = frozenset()
    is_additive: bool = True
    server: str = "fedoel.codecs.features.codec:FeatureCodec"

    def __init__(self) -> None:
        """Check name and coordinates.

        Raises
        ------
        ConfigError
            If there is no name, or the coordinates are no list or tuple of distinct names, at least one.
        """
        name, coordinates = getattr(self, "name", ""), getattr(self, "coordinates", ())
        listed = isinstance(coordinates, (list, tuple)) and len(coordinates) > 0
        if not (listed and all(map(_is_name, (name, *coordinates))) and len(set(coordinates)) == len(coordinates)):
            raise ConfigError(
                f"the codec {type(self).__name__} needs a name and the names of its coordinates, at least one and all "
                "different, such as name = 'habits' and coordinates = ('takes something', 'leads back')"
            )

    @abstractmethod
    def features(self, situation: Situation) -> ArrayLike:
        """Return phi, one row for each of ``situation.admissible``, shape ``(A, len(coordinates))``.

        It must depend on nothing but the situation, since devices and server compute it each for themselves.
        """

    @property
    def dimension(self) -> int:
        """Number of features."""
        return len(self.coordinates)

    @property
    def vocabulary(self) -> str:
        """Hash of the names of codec and features."""
        return hashlib.sha256(repr((self.name, *self.coordinates)).encode()).hexdigest()[:16]

    def phi(self, situation: Situation) -> NDArray[np.float32]:
        """Return the features of a situation, checked, shape ``(A, dimension)``.

        Raises
        ------
        VectorError
            If they have another shape, or are not finite.
        """
        phi, expected = np.asarray(self.features(situation), np.float32), (len(situation.admissible), self.dimension)
        if phi.shape != expected or not np.isfinite(phi).all():
            raise VectorError(
                f"the features of the codec {self.name!r} must be finite numbers of shape {expected}, a row for each "
                f"command and a column for each of its coordinates, not of shape {phi.shape}"
            )
        return phi

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Tilt the policy; a context of zeros returns the policy itself."""
        return FeatureTiltedPolicy(policy, context, self.phi) if context.any() else policy

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum score functions, weighted by advantages, and variances of the features."""
        return gradient_and_fisher(turns, self.turn_features(policy, turns), advantages, self.dimension)

    def turn_features(self, policy: Policy, turns: Sequence[Turn]) -> list[NDArray[np.float32]]:
        """Return phi of every turn's commands, shapes ``(A, dimension)``."""
        return [self.phi(turn.situation) for turn in turns]


def _is_name(text: object) -> bool:
    return isinstance(text, str) and text.isprintable() and bool(text.strip())


@dataclass(frozen=True, slots=True, eq=False)
class FeatureTiltedPolicy:
    """A policy under a context, which adds w . phi to the score of every command."""

    policy: Policy
    weights: NDArray[np.floating[Any]]
    phi: Phi
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return f"{self.policy.version}+context"

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        answers = zip(self.policy.score(situations), situations, strict=True)
        return [tilted(log_probs, self.phi(situation) @ self.weights) for log_probs, situation in answers]

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation; this context adds none."""
        return self.policy.tokens(situations)
