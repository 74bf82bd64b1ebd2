"""Krum and Multi-Krum: select the vectors with the closest neighbours (Blanchard et al. 2017, arXiv 1703.02757)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution
from .experience import ExperienceStrategy
from .robust import krum_order, normalised_rows, rows_of, scaled_to_sum


class _Selecting(ExperienceStrategy):
    """Averages the vectors with the lowest Krum scores, and scales their mean to the cohort's sum."""

    num_malicious_nodes: int

    def select(self, devices: int) -> int:
        """Return how many of the vectors to average."""
        return 1

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Score vectors by distances between their normalised gradients and Fisher diagonals, and average the best."""
        order = krum_order(normalised_rows(contributions), self.num_malicious_nodes)
        selected = sorted(order[: self.select(len(contributions))])
        return scaled_to_sum(contributions, rows_of(contributions)[selected].mean(axis=0))


class Krum(_Selecting):
    """Krum: the vector with the lowest score, times the cohort's size.

    Parameters
    ----------
    num_malicious_nodes
        Number of malicious nodes in the cohort.
    """

    def __init__(self, *arguments: Any, num_malicious_nodes: int = 0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.num_malicious_nodes = _non_negative("num-malicious-nodes", num_malicious_nodes)


class MultiKrum(_Selecting):
    """Multi-Krum: the mean of the vectors with the lowest scores, times the cohort's size.

    Parameters
    ----------
    num_malicious_nodes
        Number of malicious nodes in the cohort.
    num_nodes_to_select
        Number of nodes to select before averaging; 0 means all but `num_malicious_nodes`.
    """

    def __init__(
        self, *arguments: Any, num_malicious_nodes: int = 0, num_nodes_to_select: int = 0, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.num_malicious_nodes = _non_negative("num-malicious-nodes", num_malicious_nodes)
        self.num_nodes_to_select = _non_negative("num-nodes-to-select", num_nodes_to_select)

    def select(self, devices: int) -> int:
        """Return the configured number, at most the number of devices."""
        return min(devices, max(1, self.num_nodes_to_select or devices - self.num_malicious_nodes))


def _non_negative(name: str, value: int) -> int:
    if value < 0:
        raise ConfigError(f"{name} must not be negative, not {value}")
    return value
