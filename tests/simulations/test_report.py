"""The report: one file that holds everything and asks for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.summary import Summary
from fedoel.simulations.report import write_report
from fedoel.simulations.summary import headline, table

Save = Callable[[Path, Summary], Path]
VOID = {"meta", "path", "use", "br"}


class Balance(HTMLParser):
    """Checks that every element that opens also closes."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag


def test_the_report_says_everything(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    assert "went from 21\N{NO-BREAK SPACE}%" in page
    for part in ("treasure-hunter", "another policy version", "gate wins 43 %", "games.per-client"):
        assert part in page
    for part in ("+1.42", "avoid: repeat", "38.0 kB", "warm-start", "tactics only", "color-scheme"):
        assert part in page
    assert "{{" not in page


def test_the_report_is_well_formed_and_loads_nothing(run: Path) -> None:
    page = write_report(run).read_text(encoding="utf-8")
    parser = Balance()
    parser.feed(page)
    assert parser.open == []
    assert not re.search(r"<(script|link|img|iframe)|\ssrc=|@import|url\(\s*['\"]?http", page)
    assert all(link.startswith("#") for link in re.findall(r'href="([^"]*)"', page))


def test_values_are_escaped(tmp_path: Path, save: Save, summary: Summary) -> None:
    first, second, *rest = summary.cycles
    cycles = (first, replace(second, reason="<b>bold</b>"), *rest)
    summary = replace(summary, scenario="<script>alert(1)</script>{{config}}", cycles=cycles)
    page = write_report(save(tmp_path / "run", summary)).read_text(encoding="utf-8")
    assert "<script" not in page
    assert "<b>" not in page
    assert "&lt;here&gt; &amp; now" in page


@pytest.mark.parametrize("name", ["summary.json", "events.jsonl"])
@pytest.mark.parametrize("content", [None, b"not json\n\n{", b"\xff\xfe\n\n1", b'{"cycles": []}\n{}\n'])
def test_missing_and_damaged_files_are_refused_with_a_remedy(run: Path, name: str, content: bytes | None) -> None:
    (run / name).unlink() if content is None else (run / name).write_bytes(content)
    with pytest.raises(ConfigError, match=rf"{re.escape(name)}.*(fedoel simulate|run)"):
        write_report(run)


@pytest.mark.parametrize(
    ("field", "value", "says"),
    [
        ("kl", None, r"cycles\[1\].kl must be a number, not null"),
        ("lessons", [{}], r"cycles\[1\].lessons\[0\].tactic is missing"),
        ("families", {}, r"lacks cycles\[1\].families.coin-collector"),
        ("seconds", {"gate": "x"}, r"cycles\[1\].seconds.gate must be a number, not 'x'"),
        ("colour", "red", r"cycles\[1\].colour is not a field"),
    ],
)
def test_a_summary_that_is_damaged_within_is_refused(run: Path, field: str, value: object, says: str) -> None:
    table = json.loads((run / "summary.json").read_text())
    table["cycles"][1][field] = value
    (run / "summary.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=rf"summary.json.*{says}.*fedoel simulate"):
        write_report(run)


def test_the_headline_does_not_claim_what_the_intervals_do_not_show(summary: Summary) -> None:
    assert "do not overlap" in headline(summary)
    assert headline(replace(summary, cycles=summary.cycles[:1])).startswith("After the warm start 21 %")


def test_overlapping_intervals_are_said(one_family: Summary) -> None:
    first, last = one_family.cycles
    same = replace(one_family, cycles=(first, replace(last, held_out=first.held_out)))
    assert "does not show a change" in headline(same)
    assert "coin-collector" not in table(one_family)


def test_a_run_in_plain_text_says_so(tmp_path: Path, save: Save, summary: Summary) -> None:
    page = write_report(save(tmp_path / "run", replace(summary, plaintext=True))).read_text()
    assert "This run was not private" in page


def test_a_fleet_whose_server_has_no_games_reports_its_own_games(
    tmp_path: Path, save: Save, fleets: dict[str, Summary]
) -> None:
    told = fleets["told"]
    page = write_report(save(tmp_path / "run", told)).read_text(encoding="utf-8")
    assert headline(told).endswith("In its trial the current one won 75 % (45-100 %) of the fleet's own games.")
    assert "wins of the fleet&#39;s own games" in page and "not measured" in page
    assert "Game families" not in page and "Floors" not in page
    cells = [re.split(r"  +", line) for line in table(told).splitlines()]
    assert cells[0][2] == "wins of the fleet's own games"
    assert [row[2] for row in cells[1:]] == ["not measured", "75 % (45-100 %)"]


@pytest.mark.parametrize("name", ["told", "hidden"])
def test_what_nobody_measured_is_never_a_rate(
    tmp_path: Path, save: Save, fleets: dict[str, Summary], name: str
) -> None:
    summary = fleets[name]
    page = write_report(save(tmp_path / "run", summary)).read_text(encoding="utf-8")
    for text in (page, table(summary), headline(summary)):
        assert not re.search(r"\b0 % \(", text) and "eld-out" not in text.split("<summary>")[0]
    assert ("is not measured" in headline(summary)) is (name == "hidden")


def test_a_deployment_has_no_floor_of_tactics_and_a_simulation_that_has_none_is_unfinished(
    tmp_path: Path, save: Save, summary: Summary
) -> None:
    lacking = replace(summary, floors=replace(summary.floors, tactics_only=None))
    with pytest.raises(ConfigError, match=r"lacks floors\.tactics_only"):
        write_report(save(tmp_path / "simulated", lacking))
    write_report(save(tmp_path / "deployed", replace(lacking, engine="flower")))
