"""The server half of a `FeatureEncoder`: lessons are the names of its coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...policies.policy import Policy
from ...protocol.errors import ConfigError
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ...protocol.situation import Memory
from ..context import TeacherContext, weights_as_lessons
from ..log_linear_codec import LogLinearCodec
from .encoder import FeatureEncoder


@dataclass(frozen=True, slots=True)
class FeatureCodec(LogLinearCodec):
    """Knows step and teacher in closed form, without a model."""

    encoder: FeatureEncoder

    def __post_init__(self) -> None:
        """Try the encoder on a situation, before any device has to.

        Raises
        ------
        ConfigError
            If it cannot tell the features of one.
        """
        situation = Memory("Take the coin.", 9).see("-= Hall =-\nThere is a coin.", ("take coin", "go east"), 0)
        try:
            self.encoder.phi(situation)
        except Exception as error:  # a plug-in is code of others
            subject = f"the codec {self.encoder.name!r} cannot tell the features of a situation"
            raise ConfigError(f"{subject}: {type(error).__name__}: {error}") from error

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return the features that have weight, strongest first."""
        return weights_as_lessons(context, self.encoder.coordinates)
