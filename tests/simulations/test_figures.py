"""The learning curve."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

from fedoel.protocol.records.summary import Summary
from fedoel.simulations.curves import apart, curves
from fedoel.simulations.figures import draw_learning_curve


def test_png_and_svg_are_written_and_the_same_again(tmp_path: Path, summary: Summary) -> None:
    first = [path.read_bytes() for path in draw_learning_curve(summary, tmp_path / "a")]
    second = [path.read_bytes() for path in draw_learning_curve(summary, tmp_path / "b")]
    assert first == second
    assert first[0].startswith(b"\x89PNG")
    assert ElementTree.fromstring(first[1]).tag.endswith("svg")


def test_small_multiples_only_where_there_are_several_families(summary: Summary, one_family: Summary) -> None:
    assert [curve.title for curve in curves(summary)] == ["All games", "coin-collector", "treasure-hunter", "cooking"]
    assert [curve.title for curve in curves(one_family)] == ["All games"]


def test_tactics_only_is_a_curve_or_else_a_floor(summary: Summary) -> None:
    assert curves(summary)[0].tactics == (0.2, 0.3, 0.33, 0.38)
    flat = replace(summary.floors.named()["tactics_only"], cycles=None)
    overall = curves(replace(summary, floors=replace(summary.floors, tactics_only=flat)))[0]
    assert overall.tactics == ()
    assert ("tactics_only", 0.38) in overall.floors


@pytest.mark.parametrize("cycles", [1, 2])
def test_short_runs_and_runs_without_a_teacher_are_drawn(tmp_path: Path, summary: Summary, cycles: int) -> None:
    short = replace(summary, cycles=tuple(replace(record, teacher=None) for record in summary.cycles[:cycles]))
    for path in draw_learning_curve(short, tmp_path):
        assert path.stat().st_size > 1000


def test_labels_keep_apart_in_order_and_inside() -> None:
    heights = [1.0, 0.99, 0.5, 0.5, 0.0]
    placed = apart(heights, 0.06)
    order = sorted(placed)
    assert all(above - below >= 0.06 - 1e-9 for below, above in pairwise(order))
    assert max(placed) <= 1.04
    assert placed[4] == min(placed)


@pytest.mark.parametrize("name", ["told", "hidden"])
def test_a_fleet_without_held_out_games_is_drawn(tmp_path: Path, fleets: dict[str, Summary], name: str) -> None:
    [curve] = curves(fleets[name])
    assert curve.floors == () and len(curve.teacher) == (name == "told")
    for path in draw_learning_curve(fleets[name], tmp_path):
        assert path.stat().st_size > 1000
