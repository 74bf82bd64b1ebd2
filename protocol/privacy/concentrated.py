"""Zero-concentrated differential privacy: a device's own account of what its contributions have cost.

It takes every release for one that the device is known to take part in: amplification by sampling does not hold against
a server that knows, or chooses, who is drawn. (Discrete) Gaussian noise with the multiplier z gives rho-zCDP with rho =
1 / (2 z^2), and the rhos of releases add up (Bun and Steinke 2016, arXiv 1605.02065; Canonne, Kamath and Steinke 2020,
arXiv 2004.00010).
"""

from __future__ import annotations

import math

import numpy as np


def rho_of(noise_multiplier: float) -> float:
    """Return the rho of one release; infinity without noise."""
    return 0.5 / noise_multiplier**2 if noise_multiplier else math.inf


def epsilon_of(rho: float, delta: float) -> float:
    """Return an epsilon with which rho-zCDP implies (epsilon, delta)-differential privacy; infinity without noise.

    The smallest one over the orders of Renyi divergence, by corollary 13 of arXiv 2004.00010.
    """
    if not rho < math.inf:
        return math.inf
    order = 1 + np.geomspace(1e-4, 1e8, 2000)
    epsilon = rho * order + np.log1p(-1 / order) - math.log(delta) / (order - 1) - np.log(order) / (order - 1)
    return max(0.0, float(epsilon.min())) if rho else 0.0
