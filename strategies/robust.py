"""Byzantine-robust statistics as pure functions on matrices with one row per device.

A malicious device may send any vector within the clipping norms. These statistics are robust *means*;
`scaled_to_sum` multiplies a mean by the size of the cohort, because the natural gradient step
``g / (F + damping)`` expects gradient and Fisher diagonal on the scale of a sum.
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
    """Return the flattened vectors as rows, shape ``(devices, spec.size)``."""
    return np.stack([contribution.vector.to_array().astype(np.float64) for contribution in contributions])


def scaled_to_sum(contributions: Sequence[Contribution], mean: Row, cohort: int | None = None) -> Aggregate:
    """Multiply a mean vector, shape ``(spec.size,)``, by the cohort's size, by default the number of contributions."""
    cohort = len(contributions) if cohort is None else cohort
    values = (cohort * mean).astype(np.float32)
    return Aggregate(ExperienceVector.unchecked(contributions[0].vector.spec, values), cohort)


def trimmed_mean(values_NS: Rows, beta: float) -> Row:
    """Coordinate-wise trimmed mean (Yin et al. 2018, arXiv 1803.01498).

    Parameters
    ----------
    values_NS
        One row per device, shape ``(devices, size)``.
    beta
        Fraction of the devices to drop from each tail of each coordinate.
    """
    trimmed = int(beta * len(values_NS))
    mean_S: Row = np.sort(values_NS, axis=0)[trimmed : len(values_NS) - trimmed].mean(axis=0)
    return mean_S


def krum_order(points_ND: Rows, num_malicious_nodes: int) -> list[int]:
    """Return row indices by ascending Krum score (Blanchard et al. 2017, arXiv 1703.02757).

    The score of a row is the sum of squared distances to its ``devices - num_malicious_nodes - 2`` nearest neighbours.
    """
    squared_norms_N = (points_ND**2).sum(axis=1)
    distances_NN = np.maximum(squared_norms_N[:, None] + squared_norms_N[None, :] - 2 * points_ND @ points_ND.T, 0.0)
    np.fill_diagonal(distances_NN, np.inf)
    neighbours = max(1, len(points_ND) - num_malicious_nodes - 2)
    scores_N = np.sort(distances_NN, axis=1)[:, : min(neighbours, len(points_ND) - 1)].sum(axis=1)
    return [int(row) for row in np.argsort(scores_N, kind="stable")]


def cosine(one: NDArray[np.floating[Any]], other: NDArray[np.floating[Any]]) -> float:
    """Return the cosine similarity of two vectors; 0 if either is zero."""
    left, right = one.astype(np.float64), other.astype(np.float64)
    norms = float(np.linalg.norm(left)) * float(np.linalg.norm(right))
    return float(left @ right) / norms if norms else 0.0


def normalised_rows(contributions: Sequence[Contribution]) -> Rows:
    """Return gradient and Fisher diagonal, each over its clipping norm, as rows ``(devices, 2 * dimension)``."""
    spec, vectors = contributions[0].vector.spec, [contribution.vector for contribution in contributions]
    rows = [np.concatenate([v.gradient / spec.clipping_norm, v.fisher / spec.fisher_norm]) for v in vectors]
    return np.stack(rows).astype(np.float64)


def check_fraction(name: str, value: float, below: float) -> None:
    """Check that an option is in ``[0, below)``.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not 0 <= value < below:
        raise ConfigError(f"{name} must be in the range [0, {below:g}), not {value}")
