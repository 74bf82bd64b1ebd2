"""The device half of the prefix codec: the policy gradient with respect to a soft prompt in a random subspace.

    g = sum_t A_t grad_w log pi_w(a_t | x_t)        F = sum_t (grad_w log pi_w(a_t | x_t))^2

at the context that was played (prompt tuning, arXiv 2104.08691). It costs one backward pass per turn through the
frozen policy.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import PROMPT, SoftPrompted, behind
from ...policies.policy import Policy
from ...policies.spaces import SoftPrompt
from ...protocol.experience import Vector
from ...protocol.play import Turn
from .coordinates import DIMENSION, SPACE, VOCABULARY

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class PrefixEncoder:
    """Coordinates of a soft prompt; zeros stand for the embeddings of its start text."""

    name: str = "prefix"
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    required_abilities: frozenset[str] = frozenset({PROMPT})
    is_additive: bool = False
    server: str = "fedoel.codecs.prefix.codec:prefix_codec"

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Put the soft prompt into the policy's prompt.

        Raises
        ------
        ConfigError
            If the policy reads no prompt.
        """
        return behind(policy, SoftPrompt(SPACE, context))

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Sum per-turn gradients, weighted by advantages, and their squares."""
        gradients = cast(SoftPrompted, policy).gradients(turns).astype(np.float64)
        return advantages @ gradients, (gradients**2).sum(0)
