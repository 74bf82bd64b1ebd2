"""The codec `steering`: contrastive activation directions, weighted by advantages.

    g = sum_t A_t (c(x_t, a_t) - E_pi c(x_t, .))        F = sum_t Var_pi c(x_t, .)

c(x, a) is the gradient of a's score with respect to the hidden states that the LM head reads
(`fedoel.policies.torch.steered`), in coordinates of public random subspaces. g contrasts the command that was given
with the alternatives, as contrastive activation addition does (arXiv 2312.06681). It needs forward passes only. For a
vector added behind the last layer it is the exact policy gradient; differences of the commands' own hidden states, the
usual form, are nearly orthogonal to that gradient.

A context holds one block of coordinates per layer at which a control vector may be added, at three depths. All blocks
are estimated; play then selects the block that the teacher keeps, and its strength (`fedoel.codecs.codec.ModelCodec`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

from ..policies.abilities import RESIDUAL, Steered, steered
from ..policies.policy import Policy
from ..policies.spaces import ControlVector, ResidualSpace
from ..protocol.experience import Floats, Vector
from ..protocol.play import Turn
from .log_linear import gradient_and_fisher

COORDINATES = 96  # per layer: with three layers and the counters, a vector stays under 4 KiB
DEPTHS = (0.8, 0.9, 1.0)
SCALE = 1 / 8  # the gradient of a few games then fits the clipping norms
VOCABULARY = hashlib.sha256(repr((COORDINATES, DEPTHS, SCALE, "steering", 2)).encode()).hexdigest()[:16]
SPACE = ResidualSpace(VOCABULARY, DEPTHS, COORDINATES, SCALE)
DIMENSION = SPACE.dimension
BLOCKS = {f"{depth:.0%} of the layers": slice(n * COORDINATES, (n + 1) * COORDINATES) for n, depth in enumerate(DEPTHS)}
"""The slice of each block's coordinates, by the name of its depth."""


@dataclass(frozen=True, slots=True)
class SteeringEncoder:
    """Coordinates of control vectors, one block per layer at which one may be added."""

    name: str = "steering"
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    required_abilities: frozenset[str] = frozenset({RESIDUAL})
    is_additive: bool = False
    blocks: ClassVar[Mapping[str, slice]] = BLOCKS

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Add the control vectors.

        Raises
        ------
        ConfigError
            If the policy has no residual stream.
        """
        return steered(policy, ControlVector(SPACE, context))

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum the feature of the given command minus the mean, weighted by advantages, and the variances."""
        features = cast(Steered, policy).features([turn.situation for turn in turns])
        return gradient_and_fisher(turns, features, advantages, DIMENSION)
