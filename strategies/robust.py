"""Byzantine-robust aggregation: trimmed mean, median, Krum, norm bounding and FLTrust.

A malicious device may send any vector within the clipping norms. The statistics are pure functions on matrices with one
row per device. They are robust *means*; `scaled_to_sum` multiplies a mean by the size of the cohort, because the
natural gradient step ``g / (F + damping)`` expects gradient and Fisher diagonal on the scale of a sum.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError, VectorError
from ..protocol.experience import Aggregate, Contribution, ExperienceVector, Vector, clip, total
from ..protocol.trials import sums_of
from .experience import ExperienceStrategy

Rows = NDArray[np.float64]
Row = NDArray[np.float64]
TRIAL_BETA = 0.2  # share of the answers to a trial that is left out at either end


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


def check_fraction(name: str, value: float, below: float) -> None:
    """Check that an option is in ``[0, below)``.

    Raises
    ------
    ConfigError
        If it is not.
    """
    if not 0 <= value < below:
        raise ConfigError(f"{name} must be in the range [0, {below:g}), not {value}")


class _Robust(ExperienceStrategy):
    """Answers to a trial are trimmed, whatever is done with experience."""

    def aggregate_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        """Leave out the devices that report the largest gains and losses, and scale the others' sum to all."""
        gains = [float(sums_of(contribution.vector)[:, 0].sum()) for contribution in contributions]
        trimmed = int(TRIAL_BETA * len(gains))
        kept = [contributions[index] for index in np.argsort(gains, kind="stable")[trimmed : len(gains) - trimmed]]
        return scaled_to_sum(contributions, rows_of(kept).mean(axis=0))


class TrimmedMean(_Robust):
    """Coordinate-wise trimmed mean (Yin et al. 2018, arXiv 1803.01498), scaled to the cohort's sum.

    Parameters
    ----------
    beta
        Fraction to cut off of both tails of the distribution, in the range ``[0, 0.5)``. A coordinate that is non-zero
        on a smaller fraction of the devices becomes zero.
    """

    def __init__(self, *arguments: Any, beta: float = 0.2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta", beta, 0.5)
        self.beta = beta

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Trim and average each coordinate of gradient, Fisher diagonal and counters."""
        return scaled_to_sum(contributions, trimmed_mean(rows_of(contributions), self.beta))


class Median(_Robust):
    """Coordinate-wise median (Yin et al. 2018), scaled to the cohort's sum."""

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Take the median of each coordinate of gradient, Fisher diagonal and counters."""
        return scaled_to_sum(contributions, np.median(rows_of(contributions), axis=0))


class Krum(_Robust):
    """Krum (Blanchard et al. 2017, arXiv 1703.02757): the vector with the lowest score, times the cohort's size.

    Parameters
    ----------
    num_malicious_nodes
        Number of malicious nodes in the cohort.
    """

    def __init__(self, *arguments: Any, num_malicious_nodes: int = 0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.num_malicious_nodes = _non_negative("num-malicious-nodes", num_malicious_nodes)

    def select(self, devices: int) -> int:
        """Return how many of the vectors to average."""
        return 1

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Score vectors by distances between their normalised gradients and Fisher diagonals, and average the best."""
        spec, vectors = contributions[0].vector.spec, [contribution.vector for contribution in contributions]
        points = [np.concatenate([v.gradient / spec.clipping_norm, v.fisher / spec.fisher_norm]) for v in vectors]
        order = krum_order(np.stack(points).astype(np.float64), self.num_malicious_nodes)
        selected = sorted(order[: self.select(len(contributions))])
        return scaled_to_sum(contributions, rows_of(contributions)[selected].mean(axis=0))


class MultiKrum(Krum):
    """Multi-Krum: the mean of the vectors with the lowest scores, times the cohort's size.

    Parameters
    ----------
    num_nodes_to_select
        Number of nodes to select before averaging; 0 means all but `num_malicious_nodes`.
    num_malicious_nodes
        See `Krum`.
    """

    def __init__(self, *arguments: Any, num_nodes_to_select: int = 0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.num_nodes_to_select = _non_negative("num-nodes-to-select", num_nodes_to_select)

    def select(self, devices: int) -> int:
        """Return the configured number, at most the number of devices."""
        return min(devices, max(1, self.num_nodes_to_select or devices - self.num_malicious_nodes))


def _non_negative(name: str, value: int) -> int:
    if value < 0:
        raise ConfigError(f"{name} must not be negative, not {value}")
    return value


class NormBounded(_Robust):
    """Norm bounding (Sun et al. 2019, arXiv 1911.07963): clip to a multiple of the cohort's median norm, and sum.

    The clipping norms that devices apply are fixed for all games, and most vectors are far below them. The median norm
    adapts to what honest devices send.

    Parameters
    ----------
    norm_bound
        Largest norm of gradient and Fisher diagonal, as a multiple of the cohort's median norms.
    """

    def __init__(self, *arguments: Any, norm_bound: float = 1.0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if not norm_bound > 0:
            raise ConfigError(f"norm-bound must be more than zero, not {norm_bound}")
        self.norm_bound = norm_bound

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Clip gradients and Fisher diagonals, and sum."""
        clipped = clipped_to_median(contributions, self.norm_bound)
        return Aggregate(total(contribution.vector for contribution in clipped), len(clipped))


def clipped_to_median(contributions: Sequence[Contribution], norm_bound: float = 1.0) -> list[Contribution]:
    """Clip gradients and Fisher diagonals to `norm_bound` times the cohort's median norm of each."""
    vectors = [contribution.vector for contribution in contributions]
    most_g, most_f = (
        norm_bound * float(np.median([np.linalg.norm(part) for part in parts]))
        for parts in ([v.gradient for v in vectors], [v.fisher for v in vectors])
    )
    clipped = [replace(v, gradient=clip(v.gradient, most_g), fisher=clip(v.fisher, most_f)) for v in vectors]
    return [replace(contribution, vector=vector) for contribution, vector in zip(contributions, clipped, strict=True)]


class Trusted(_Robust):
    """FLTrust (Cao et al. 2020, arXiv 2012.13995), with the server's public games as the root of trust.

    It clips every vector to the cohort's median norm, and weights it by its trust score: the cosine similarity of a
    gradient with the server's own, or zero where that is negative. The server's gradient comes from the public
    rehearsal games, which it plays in any case. It lacks much of what devices have learned, but its direction separates
    honest gradients from reversed ones. This strategy assumes that public games resemble private ones.
    """

    needs_games = True

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Average the clipped vectors with their trust scores as weights, and scale to the cohort's sum."""
        rows, trust = self._trusted(contributions)
        return scaled_to_sum(contributions, trust @ rows / trust.sum())

    def _trusted(self, contributions: Sequence[Contribution]) -> tuple[Rows, NDArray[np.float64]]:
        """Return clipped vectors as rows, and their trust scores, at least one of which is positive."""
        reference = self.server.reference(*self.current).gradient
        clipped = clipped_to_median(contributions)
        trust = trust_scores([contribution.vector for contribution in clipped], reference)
        if not trust.any():
            raise VectorError("no vector has a positive cosine with the server's own gradient")
        return rows_of(clipped), trust


class TrustedTrimmed(Trusted):
    """Exclude vectors without a positive trust score, and take the trimmed mean of the others.

    Weights by trust suppress what devices with rare games have learned; a trimmed mean alone can be moved by many
    colluding devices. Exclusion by trust followed by an unweighted trimmed mean avoids both.

    Parameters
    ----------
    beta
        Fraction of the remaining vectors to cut off of both tails of each coordinate, in the range ``[0, 0.5)``.
    """

    def __init__(self, *arguments: Any, beta: float = 0.2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        check_fraction("beta", beta, 0.5)
        self.beta = beta

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Take the trimmed mean of the trusted vectors, and scale it to the cohort's sum."""
        rows, trust = self._trusted(contributions)
        return scaled_to_sum(contributions, trimmed_mean(rows[trust > 0], self.beta))


def trust_scores(vectors: Sequence[ExperienceVector], reference: Vector) -> NDArray[np.float64]:
    """Return ``max(0, cos(gradient, reference))`` for each vector."""
    return np.array([max(0.0, cosine(vector.gradient, reference)) for vector in vectors])
