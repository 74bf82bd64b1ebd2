"""Krum: trust the devices whose vectors have the closest neighbours (Blanchard et al. 2017, arXiv 1703.02757)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..protocol.errors import ConfigError
from ..protocol.experience import Aggregate, Contribution
from .experience import ExperienceStrategy
from .robust import krum_order, points_of, rows_of, spread


class _Selecting(ExperienceStrategy):
    """Averages the devices that Krum puts first, on the scale of the cohort's sum."""

    num_malicious_nodes: int

    def select(self, devices: int) -> int:
        """How many of the devices to average."""
        return 1

    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Compare gradients and Fisher diagonals in clipping norms, and average the chosen devices."""
        order = krum_order(points_of(contributions), self.num_malicious_nodes)
        chosen = sorted(order[: self.select(len(contributions))])
        return spread(contributions, rows_of(contributions)[chosen].mean(axis=0))


class Krum(_Selecting):
    """The one device whose neighbours are closest stands for the whole cohort.

    Parameters
    ----------
    num_malicious_nodes
        Number of malicious nodes in the cohort.
    """

    def __init__(self, *arguments: Any, num_malicious_nodes: int = 0, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        self.num_malicious_nodes = _count("num-malicious-nodes", num_malicious_nodes)


class MultiKrum(_Selecting):
    """The devices whose neighbours are closest stand for the cohort.

    Parameters
    ----------
    num_malicious_nodes
        Number of malicious nodes in the cohort.
    num_nodes_to_select
        Number of nodes to select before averaging; 0 for all but `num_malicious_nodes`.
    """

    def __init__(
        self, *arguments: Any, num_malicious_nodes: int = 0, num_nodes_to_select: int = 0, **settings: Any
    ) -> None:
        super().__init__(*arguments, **settings)
        self.num_malicious_nodes = _count("num-malicious-nodes", num_malicious_nodes)
        self.num_nodes_to_select = _count("num-nodes-to-select", num_nodes_to_select)

    def select(self, devices: int) -> int:
        """As many as were asked for, and there are."""
        return min(devices, max(1, self.num_nodes_to_select or devices - self.num_malicious_nodes))


def _count(name: str, value: int) -> int:
    if value < 0:
        raise ConfigError(f"{name} must not be negative, but is {value}")
    return value
