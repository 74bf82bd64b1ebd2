"""The benchmark of fleet sizes runs, and counts a client in relation to the smallest fleet."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.scale import Cost, cost, table


def test_a_fleet_is_measured(tmp_path: Path, cache: Path) -> None:
    measured = cost(6, tmp_path / "run")
    assert measured.clients == 6
    assert measured.cpu > 0 and measured.wall > 0 and measured.megabytes > 50
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_clients_cost_is_compared_with_the_first_row() -> None:
    rows = table([Cost(10, 2.0, 1.0, 90.0), Cost(100, 30.0, 15.0, 100.0)]).splitlines()
    assert rows[2].split("|")[4:6] == [" 100.00 ", " 1.00 "]
    assert rows[3].split("|")[4:6] == [" 150.00 ", " 1.50 "]
    assert pytest.approx(1.5) == float(rows[3].split("|")[5])
