"""The codec `prefix`: the policy gradient with respect to a soft prompt in a public random subspace of its embeddings.

    g = sum_t A_t grad_w log pi_w(a_t | x_t)        F = sum_t (grad_w log pi_w(a_t | x_t))^2

at the context that was played (prompt tuning, arXiv 2104.08691). It costs one backward pass per turn through the
frozen policy. The server half is `fedoel.codecs.codec.ModelCodec`.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, cast

import numpy as np

from ..policies.abilities import PROMPT, SoftPrompted, behind
from ..policies.policy import Policy
from ..policies.spaces import PromptSpace, SoftPrompt
from ..protocol.experience import Floats, Vector
from ..protocol.play import Turn

VIRTUAL_TOKENS = 12
DIMENSION = 256
START = "Advice from earlier games: pay attention to what is new here, and to the goal.\n"
SCALE = 1.0
# Largest norm of a context, so that soft prompts stay near the start text. Embeddings that move by more than 0.6 of
# their norm, on average, become noise that the model ignores: KL to the bare text falls again, and gradients vanish.
RADIUS = 0.6 * math.sqrt(VIRTUAL_TOKENS) / SCALE
VOCABULARY = hashlib.sha256(repr((VIRTUAL_TOKENS, DIMENSION, START, SCALE, 1)).encode()).hexdigest()[:16]
SPACE = PromptSpace(VOCABULARY, START, VIRTUAL_TOKENS, DIMENSION, SCALE)


@dataclass(frozen=True, slots=True)
class PrefixEncoder:
    """Coordinates of a soft prompt; zeros stand for the embeddings of its start text."""

    name: str = "prefix"
    vocabulary: str = VOCABULARY
    dimension: int = DIMENSION
    required_abilities: frozenset[str] = frozenset({PROMPT})
    is_additive: bool = False
    radius: ClassVar[float] = RADIUS

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
