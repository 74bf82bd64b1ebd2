"""Clustered aggregation: one context per cluster of devices whose gradients point in similar directions.

Where devices' environments conflict, the sum of their gradients fits none of them. Clustered federated learning
(Sattler et al. 2019, arXiv 1910.01991; IFCA, Ghosh et al. 2020, arXiv 2006.04088) keeps one model per cluster. Here
each cluster has its own context, and all contexts are distilled into one adapter: each public state is assigned a
cluster at random, in proportion to how often the cluster's devices played the state's family.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution, total
from .experience import ExperienceStrategy

ROUNDS = 32
Labels = NDArray[np.int64]


class Clustered(ExperienceStrategy):
    """Sum the vectors of each cluster of devices; the aggregate holds these sums as its parts.

    Clusters are found by the cosine similarity of gradients, as Sattler et al. do, with k-means instead of bisection.

    Parameters
    ----------
    num_clusters
        Number of clusters to search for.
    min_cluster_size
        Smallest number of devices in a cluster; devices of smaller clusters join the nearest larger one.
    """

    needs_games = True  # a trial on devices compares one context with none

    def __init__(self, *arguments: Any, num_clusters: int = 2, min_cluster_size: int = 2, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if num_clusters < 1 or min_cluster_size < 1:
            raise ConfigError(
                f"num-clusters and min-cluster-size must be at least 1, not {num_clusters} and {min_cluster_size}"
            )
        if self.exchanges > 1:
            raise ConfigError("clustered needs strategy.exchanges 1: a later exchange could play with one context only")
        self.num_clusters = num_clusters
        self.min_cluster_size = min_cluster_size

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Sum the vectors of the whole cohort and of each cluster."""
        vectors = [contribution.vector for contribution in contributions]
        whole = Aggregate(total(vectors), len(vectors))
        gradients_ND = np.stack([vector.gradient for vector in vectors]).astype(np.float64)
        labels_N = clusters(gradients_ND, self.num_clusters, self.min_cluster_size)
        parts = [[v for v, label in zip(vectors, labels_N, strict=True) if label == k] for k in np.unique(labels_N)]
        if len(parts) < 2:
            return whole
        return replace(whole, parts=tuple(Aggregate(total(part), len(part)) for part in parts))


def clusters(gradients_ND: NDArray[np.float64], num_clusters: int, min_cluster_size: int = 1) -> Labels:
    """Return the cluster of every row by spherical k-means, shape ``(devices,)``.

    The initial centres are chosen by farthest-first traversal, so that the result is deterministic.
    """
    norms = np.linalg.norm(gradients_ND, axis=1, keepdims=True)
    directions = np.divide(gradients_ND, norms, out=np.zeros_like(gradients_ND), where=norms > 0)
    centres = _farthest(directions, min(num_clusters, len(directions)))
    labels: Labels = np.argmax(directions @ centres.T, axis=1)
    for _ in range(ROUNDS):
        centres = np.stack([_centre(directions[labels == k], centres[k]) for k in range(len(centres))])
        reassigned: Labels = np.argmax(directions @ centres.T, axis=1)
        if (reassigned == labels).all():
            break
        labels = reassigned
    sizes = np.bincount(labels, minlength=len(centres))
    large = np.flatnonzero(sizes >= min_cluster_size)
    if not len(large):
        return np.zeros(len(labels), dtype=np.int64)
    nearest: Labels = large[np.argmax(directions @ centres[large].T, axis=1)]
    return np.where(np.isin(labels, large), labels, nearest)


def _farthest(directions: NDArray[np.float64], count: int) -> NDArray[np.float64]:
    """Choose initial centres: the row nearest to the mean, then repeatedly the row least similar to those chosen."""
    chosen = [int(np.argmax(directions @ directions.mean(axis=0)))]
    while len(chosen) < count:
        similarity = (directions @ directions[chosen].T).max(axis=1)
        similarity[chosen] = np.inf
        chosen.append(int(np.argmin(similarity)))
    return directions[chosen]


def _centre(members: NDArray[np.float64], previous: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the normalised mean direction of a cluster; the previous centre where there is none."""
    mean = members.sum(axis=0) if len(members) else previous
    norm = float(np.linalg.norm(mean))
    centre: NDArray[np.float64] = mean / norm if norm else previous
    return centre
