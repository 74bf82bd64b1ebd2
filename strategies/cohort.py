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
    """Return the ids of the nodes that are there, once there are enough: a run starts before they register.

    They come in the order in which they registered. Ids are random, but that order is the same in every simulation of
    the same fleet, so that whoever draws from the list by its places draws the same clients each time.

    Raises
    ------
    FedoelError
        If there are too few when the time is over.
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
    places = np.random.default_rng([seed, cycle, parts]).permutation(len(cohort)).tolist()
    return [[cohort[place] for place in sorted(places[part::parts])] for part in range(parts)]
