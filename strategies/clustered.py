"""Several contexts for devices that learned different things: one for each cluster of their vectors.

Where rules conflict, a sum is a compromise that holds nowhere. Clusters of devices whose gradients point the same way
keep their lessons apart (clustered federated learning, Sattler et al. 2019, arXiv 1910.01991); which of them a public
example is distilled with is drawn, as often as its family was played there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, total
from .experience import ExperienceStrategy

ROUNDS = 32
Labels = NDArray[np.int64]


class Clustered(ExperienceStrategy):
    """Sum each cluster of devices by itself; the aggregate carries them as its parts.

    Parameters
    ----------
    num_clusters
        Clusters to look for.
    min_cluster_size
        Devices that make a cluster; those of smaller ones go to the nearest of the others.
    """

    def __init__(self, *arguments: Any, num_clusters: int = 2, min_cluster_size: int = 2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if num_clusters < 1 or min_cluster_size < 1:
            raise ConfigError(
                f"num-clusters and min-cluster-size must be at least 1, not {num_clusters} and {min_cluster_size}"
            )
        if self.exchanges > 1:
            raise ConfigError("several contexts need strategy.exchanges 1: the next exchange could play one only")
        self.num_clusters = num_clusters
        self.min_cluster_size = min_cluster_size

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Cluster by the directions of gradients, and sum all of them and each cluster."""
        whole = Aggregate(total(each.vector for each in contributions), len(contributions))
        gradients = np.stack([each.vector.gradient for each in contributions]).astype(np.float64)
        labels = clusters(gradients, self.num_clusters, self.min_cluster_size)
        parts = [[c for c, label in zip(contributions, labels, strict=True) if label == k] for k in np.unique(labels)]
        if len(parts) < 2:
            return whole
        summed = tuple(Aggregate(total(each.vector for each in part), len(part)) for part in parts)
        return Aggregate(whole.vector, whole.cohort, parts=summed)


def clusters(gradients_ND: NDArray[np.float64], num_clusters: int, min_cluster_size: int = 1) -> Labels:
    """Spherical k-means: the cluster of every row, shape ``(devices,)``.

    It starts from the rows that are farthest apart, so that it needs no luck and always ends the same.
    """
    norms = np.linalg.norm(gradients_ND, axis=1, keepdims=True)
    directions = np.divide(gradients_ND, norms, out=np.zeros_like(gradients_ND), where=norms > 0)
    centres = _farthest(directions, min(num_clusters, len(directions)))
    labels: Labels = np.argmax(directions @ centres.T, axis=1)
    for _ in range(ROUNDS):
        centres = np.stack([_centre(directions[labels == k], centres[k]) for k in range(len(centres))])
        after: Labels = np.argmax(directions @ centres.T, axis=1)
        if (after == labels).all():
            break
        labels = after
    sizes = np.bincount(labels, minlength=len(centres))
    large = np.flatnonzero(sizes >= min_cluster_size)
    if not len(large):
        return np.zeros(len(labels), dtype=np.int64)
    nearest: Labels = large[np.argmax(directions @ centres[large].T, axis=1)]
    return np.where(np.isin(labels, large), labels, nearest)


def _farthest(directions: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Rows to start from: the one nearest to the mean, then always the one least like those before."""
    chosen = [int(np.argmax(directions @ directions.mean(axis=0)))]
    while len(chosen) < count:
        likeness = (directions @ directions[chosen].T).max(axis=1)
        likeness[chosen] = np.inf
        chosen.append(int(np.argmin(likeness)))
    return directions[chosen]


def _centre(members: NDArray[np.float64], before: NDArray[np.float64]) -> NDArray[np.float64]:
    mean = members.sum(axis=0) if len(members) else before
    norm = float(np.linalg.norm(mean))
    centre: NDArray[np.float64] = mean / norm if norm else before
    return centre
