"""What the table of several seeds says of students and teachers."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.seeds import kept, main
from fedoel.simulations.summary import load_summary

RESULTS = Path(__file__).parents[2] / "benchmarks" / "results"
TRIED, NOT_TRIED = RESULTS / "language" / "quick-3", RESULTS / "prompts" / "quick-14"


def test_students_are_compared_with_teachers_that_played() -> None:
    tried, not_tried = load_summary(TRIED), load_summary(NOT_TRIED)
    assert re.search(r"student of teacher: \d+ of \d+ points \(\d+ %\) in a cycle", kept([tried]))
    assert kept([not_tried]) == kept([tried, not_tried]) == "Contexts were not tried in every run."
    assert kept([replace(tried, cycles=tried.cycles[:1])]) == "No cycle was promoted."


def test_a_table_has_the_mean_and_the_range_of_its_seeds(capsys: pytest.CaptureFixture[str]) -> None:
    main([str(RESULTS / "prompts" / f"quick-{seed}") for seed in (14, 15)])
    said = capsys.readouterr().out
    assert "| 0 | **20 % (19-20)** |" in said and "2 seeds: 14, 15. Contexts were not tried in every run." in said
