"""The server half of a `FeatureEncoder`: lessons are the names of its coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...policies.policy import Policy
from ...protocol.play import Turn
from ...protocol.records.summary import Lesson
from ..context import TeacherContext, weights_as_lessons
from ..log_linear_codec import LogLinearCodec
from .encoder import FeatureEncoder


@dataclass(frozen=True, slots=True)
class FeatureCodec(LogLinearCodec):
    """Knows step and teacher in closed form, without a model."""

    encoder: FeatureEncoder

    def lessons(self, policy: Policy, turns: Sequence[Turn], context: TeacherContext) -> list[Lesson]:
        """Return the features that have weight, strongest first."""
        return weights_as_lessons(context, self.encoder.coordinates)
