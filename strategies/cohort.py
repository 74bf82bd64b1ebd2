"""Cohort sampling: wait for available nodes, sample a fraction of them, and split it over exchanges."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
from flwr.serverapp import Grid

from ..protocol.errors import FedoelError

POLL_SECONDS = 1.0


def wait_for_nodes(
    grid: Grid,
    minimum: int,
    timeout: float,
    clock: Callable[[], float] = time.monotonic,
    sleep: Callable[[float], None] = time.sleep,
) -> list[int]:
    """Wait until at least `minimum` nodes are registered, and return the ids of all that are.

    Ids are sorted by time of registration. Node ids are random, but this order is the same in every simulation of a
    fleet, so that sampling by index draws the same clients each time.

    Raises
    ------
    FedoelError
        If too few nodes have registered within `timeout` seconds.
    """
    deadline = clock() + timeout
    while len(nodes := _registered(grid)) < minimum:
        if clock() >= deadline:
            raise FedoelError(
                f"{len(nodes)} of at least {minimum} nodes are there after {timeout:.0f} s: start more nodes, "
                "or lower strategy.min-available-nodes"
            )
        sleep(min(POLL_SECONDS, max(0.0, deadline - clock())))
    return nodes


def _registered(grid: Grid) -> list[int]:
    return [node.node_id for node in sorted(grid.get_nodes(), key=lambda node: (node.registered_at, node.node_id))]


def sample(nodes: list[int], fraction: float, seed: int, cycle: int) -> list[int]:
    """Sample a fraction of the nodes, at least one; deterministic in `seed`, `cycle` and `nodes`."""
    size = min(len(nodes), max(1, int(fraction * len(nodes))))
    indices = np.random.default_rng([seed, cycle]).choice(len(nodes), size=size, replace=False)
    return [nodes[index] for index in sorted(indices)]


def split(cohort: list[int], parts: int, seed: int, cycle: int) -> list[list[int]]:
    """Partition a cohort at random into parts whose sizes differ by at most one.

    Raises
    ------
    FedoelError
        If there are fewer nodes than parts.
    """
    if len(cohort) < parts:
        raise FedoelError(
            f"a cohort of {len(cohort)} cannot take part in {parts} exchanges: start more nodes, "
            "or lower strategy.exchanges"
        )
    order = np.random.default_rng([seed, cycle, parts]).permutation(len(cohort)).tolist()
    return [[cohort[index] for index in sorted(order[part::parts])] for part in range(parts)]
