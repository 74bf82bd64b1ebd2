"""The natural gradient step from an aggregate, before the trust region bounds it.

    step = eta s g / (F + lambda)        s = g^2 / (g^2 + sigma^2 F)

`fedoel.codecs.context` derives the formula, and what privacy noise changes. The server takes this step from the
cohort's aggregate; a device takes it from its own vector for its personal context.
"""

from __future__ import annotations

import numpy as np

from ..protocol.config import ContextConfig
from ..protocol.experience import Aggregate, Vector


def natural_step(aggregate: Aggregate, config: ContextConfig) -> Vector:
    """Return the full step, not yet bounded, shape ``(dimension,)``."""
    vector, tiny = aggregate.vector, np.finfo(np.float32).tiny
    g2 = vector.gradient**2
    shrink = g2 / np.maximum(g2 + config.noise * vector.fisher + aggregate.noise, tiny)
    damping = config.damping * (1 + aggregate.noise / np.maximum(config.noise * vector.fisher, 1e-9))
    step: Vector = config.step * shrink * vector.gradient / (vector.fisher + damping)
    return step.astype(np.float32)
