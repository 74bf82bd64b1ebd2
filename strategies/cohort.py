"""Who takes part in a cycle: wait for nodes, then draw some of them."""

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
    """Return the sorted ids of the nodes that are there, once there are enough: a run starts before they register.

    Raises
    ------
    FedoelError
        If there are too few when the time is over.
    """
    deadline = clock() + timeout
    while len(nodes := sorted(grid.get_node_ids())) < minimum:
        if clock() >= deadline:
            raise FedoelError(
                f"{len(nodes)} of at least {minimum} nodes are there after {timeout:.0f} s: start more nodes, "
                "or lower strategy.min-available-nodes"
            )
        sleep(min(POLL_SECONDS, max(0.0, deadline - clock())))
    return nodes


def sample(nodes: list[int], fraction: float, seed: int, cycle: int) -> list[int]:
    """Draw a share of the nodes, at least one, the same ones each time for the same seed, cycle and nodes."""
    size = min(len(nodes), max(1, int(fraction * len(nodes))))
    picks = np.random.default_rng([seed, cycle]).choice(len(nodes), size=size, replace=False)
    return [nodes[pick] for pick in sorted(picks)]


def split(cohort: list[int], parts: int, seed: int, cycle: int) -> list[list[int]]:
    """Deal a cohort out into parts whose sizes differ by one at most, at random; every node is in one of them.

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
    dealt = np.random.default_rng([seed, cycle, parts]).permutation(cohort).tolist()
    return [sorted(dealt[part::parts]) for part in range(parts)]
