"""What README and docs/ say of tests and of figures."""

from __future__ import annotations

import re

from .pages import ROOT


def test_every_row_of_the_faults_names_tests_that_there_are() -> None:
    lines = (ROOT / "docs" / "faults.md").read_text(encoding="utf-8").splitlines()
    rows = [line for line in lines if line.startswith("| ") and not line.startswith("| what was tried")]
    assert {int(found[1]) for row in rows if (found := re.match(r"\| (\d+)\. ", row))} == {*range(1, 19)}
    for row in rows:
        named = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row)
        assert named or row.endswith("| by hand |"), row
        for path, test in named:
            assert re.search(rf"^def {test}\(", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE), test


def test_every_line_of_what_was_tried_names_a_section_of_the_results() -> None:
    results = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    titles = re.findall(r"^##+ (.+)$", results, flags=re.MULTILINE)
    lines = [line for line in (ROOT / "docs" / "tried.md").read_text(encoding="utf-8").splitlines() if line[:2] == "- "]
    assert lines
    for line in lines:
        link = re.search(r" \[(.+)\]\(results\.md#([\w-]+)\)$", line)
        assert link and link[1] in titles, line
        assert link[2] == re.sub(r"[^\w-]", "", link[1].lower().replace(" ", "-")), line


def test_readme_says_what_figures_depend_on() -> None:
    [line] = [line for line in (ROOT / "README.md").read_text(encoding="utf-8").splitlines() if "`machines`" in line]
    for cause in ("processor", "vector instructions", "threads", "precision", "library versions", "summary.json"):
        assert cause in line
