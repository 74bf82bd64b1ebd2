"""The benchmark of fleet sizes runs, keeps what it has measured, and says what a client costs."""

from __future__ import annotations

from pathlib import Path

from benchmarks.scale import Cost, cost, write


def test_a_fleet_is_measured(tmp_path: Path, cache: Path) -> None:
    measured = cost(6, "inprocess", 1, tmp_path / "run")
    assert measured.clients == 6 and measured.commit
    assert measured.cpu > 0 and measured.wall > 0 and measured.megabytes > 50
    assert 0 < measured.longest <= measured.cpu
    assert (tmp_path / "run" / "summary.json").exists()


def test_a_row_that_is_measured_again_takes_the_place_of_the_old_one(tmp_path: Path) -> None:
    old, new, other = (
        Cost(10, "inprocess", n, 9.0, cpu, 1.0, 90.0, "c0ffee") for n, cpu in ((1, 2.0), (1, 1.0), (2, 4.0))
    )
    for one in (other, old, new):
        text = write(tmp_path, one)
    rows = text.splitlines()[2:]
    assert [row.split("|")[7].strip() for row in rows] == ["100.00", "400.00"]
    assert (tmp_path / "table.md").read_text() == text and (tmp_path / "cost.svg").exists()
