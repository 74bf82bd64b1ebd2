"""The coordinates of the prefix codec: a public random subspace of a soft prompt's embeddings."""

from __future__ import annotations

import hashlib
import math

from ...policies.spaces import PromptSpace

VIRTUAL_TOKENS = 12
DIMENSION = 256
START = "Advice from earlier games: pay attention to what is new here, and to the goal.\n"
SCALE = 1.0
# Largest norm of a context. Embeddings that move by more than 0.6 of their norm, on average, become noise that the
# model ignores: KL to the bare text falls again, and gradients vanish.
RADIUS = 0.6 * math.sqrt(VIRTUAL_TOKENS) / SCALE
VOCABULARY = hashlib.sha256(repr((VIRTUAL_TOKENS, DIMENSION, START, SCALE, 1)).encode()).hexdigest()[:16]
SPACE = PromptSpace(VOCABULARY, START, VIRTUAL_TOKENS, DIMENSION, SCALE)
