"""Statistics that a minority of the cohort cannot move far, as pure functions on rows: one row a device.

A device may send anything that its clipping norms allow. What is computed here is a robust *mean*; `spread` puts it
back onto the scale of a sum over the cohort, the scale on which gradient and Fisher diagonal make a natural step.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector

Rows = NDArray[np.float64]
Row = NDArray[np.float64]


def rows_of(contributions: Sequence[Contribution]) -> Rows:
    """Flat vectors, one a row, shape ``(devices, spec.size)``."""
    return np.stack([each.vector.to_array().astype(np.float64) for each in contributions])


def spread(contributions: Sequence[Contribution], mean: Row, devices: int | None = None) -> Aggregate:
    """Make a mean device, shape ``(spec.size,)``, a sum over so many devices, by default as many as contributed."""
    devices = len(contributions) if devices is None else devices
    values = (devices * mean).astype(np.float32)
    return Aggregate(ExperienceVector.unchecked(contributions[0].vector.spec, values), devices)


def trimmed_mean(values_NS: Rows, beta: float) -> Row:
    """Mean of each column without its `beta` largest and `beta` smallest shares (Yin et al. 2018, arXiv 1803.01498)."""
    cut = int(beta * len(values_NS))
    kept: Row = np.sort(values_NS, axis=0)[cut : len(values_NS) - cut].mean(axis=0)
    return kept


def krum_order(points_ND: Rows, num_malicious_nodes: int) -> list[int]:
    """Rows by how close their nearest rows are, the closest first (Blanchard et al. 2017, arXiv 1703.02757).

    A row's score is the sum of squared distances to its ``devices - num_malicious_nodes - 2`` nearest others.
    """
    squares = (points_ND**2).sum(axis=1)
    distances_NN = np.maximum(squares[:, None] + squares[None, :] - 2 * points_ND @ points_ND.T, 0.0)
    np.fill_diagonal(distances_NN, np.inf)
    nearest = max(1, len(points_ND) - num_malicious_nodes - 2)
    scores = np.sort(distances_NN, axis=1)[:, : min(nearest, len(points_ND) - 1)].sum(axis=1)
    return [int(row) for row in np.argsort(scores, kind="stable")]


def cosine(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Cosine of the angle between two vectors; 0 where one of them is zero."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    norms = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float(left @ right) / norms if norms else 0.0


def points_of(contributions: Sequence[Contribution]) -> Rows:
    """Gradient and Fisher diagonal side by side, each in clipping norms, shape ``(devices, 2 * dimension)``."""
    spec = contributions[0].vector.spec
    return np.stack(
        [
            np.concatenate([each.vector.gradient / spec.clipping_norm, each.vector.fisher / spec.fisher_norm])
            for each in contributions
        ]
    ).astype(np.float64)


def check_share(name: str, value: float, below: float) -> None:
    """Refuse a share of the cohort that cannot be one.

    Raises
    ------
    ConfigError
        If it is negative, or not below the limit.
    """
    if not 0 <= value < below:
        raise ConfigError(f"{name} must be in the range [0, {below:g}), not {value}")
