"""In which order nodes are known: draws go by their places."""

from __future__ import annotations

from types import SimpleNamespace
from typing import cast

from flwr.serverapp import Grid

from fedoel.strategies.cohort import wait_for_nodes


def test_nodes_come_in_the_order_in_which_they_registered() -> None:
    nodes = [SimpleNamespace(node_id=name, registered_at=at) for name, at in ((3, 2.0), (9, 1.0), (1, 2.0))]
    grid = cast(Grid, SimpleNamespace(get_nodes=lambda: nodes))
    assert wait_for_nodes(grid, 3, timeout=0.0) == [9, 1, 3]
