"""The natural gradient step from an aggregate to the next context, before the trust region bounds it.

    w' = w + eta s g / (F + lambda)        s = g^2 / (g^2 + sigma^2 F)

w is the context that the aggregate was played under: zero, unless the cycle had an exchange before. g sums advantages
times score functions; under chance alone its variance is sigma^2 F, and the Wiener factor s shrinks coordinates whose
gradient chance explains. eta is `context.step`, reduced until the mean KL between the teachers with and without the
step on rehearsal turns is at most `context.max_kl`: without that bound, one noisy cycle can undo three.

With privacy noise of variance n^2, the variance under chance is sigma^2 F + n^2, and lambda grows by the same factor:
that is the posterior mode of w for g = F w + noise and the prior variance sigma^2 / lambda. A coordinate that occurs in
no public turn (F = 0) then holds noise only, and gets no step.

A device takes the same step from its own vector for its personal context.
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
