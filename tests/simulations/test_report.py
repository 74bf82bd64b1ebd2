"""The report: one file that holds everything and asks for nothing."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.simulations.report import write_report
from fedoel.simulations.summary import headline, table

Save = Callable[[Path, dict[str, Any]], Path]
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
    for part in ("went from 21 %", "treasure-hunter", "another policy version", "gate wins 43 %", "games.per-client"):
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


def test_values_are_escaped(tmp_path: Path, save: Save, summary: dict[str, Any]) -> None:
    summary["scenario"] = "<script>alert(1)</script>{{config}}"
    summary["cycles"][1]["reason"] = "<b>bold</b>"
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


@pytest.mark.parametrize("damage", [{"kl": None}, {"lessons": [{}]}, {"families": {}}, {"seconds": {"gate": "x"}}])
def test_a_summary_that_is_damaged_within_is_refused(
    tmp_path: Path, save: Save, summary: dict[str, Any], damage: dict[str, Any]
) -> None:
    run = save(tmp_path / "run", summary)
    (run / "events.jsonl").write_text("")
    summary["cycles"][1].update(damage)
    (run / "summary.json").write_text(json.dumps(summary))
    with pytest.raises(ConfigError, match="damaged"):
        write_report(run)


def test_the_headline_does_not_claim_what_the_intervals_do_not_show(summary: dict[str, Any]) -> None:
    assert "do not overlap" in headline(summary)
    summary["cycles"] = summary["cycles"][:1]
    assert headline(summary).startswith("After the warm start 21 %")


def test_overlapping_intervals_are_said(one_family: dict[str, Any]) -> None:
    one_family["cycles"][1]["held_out"] = one_family["cycles"][0]["held_out"]
    assert "does not show a change" in headline(one_family)
    assert "coin-collector" not in table(one_family)


def test_a_run_in_plain_text_says_so(tmp_path: Path, save: Save, summary: dict[str, Any]) -> None:
    page = write_report(save(tmp_path / "run", {**summary, "plaintext": True})).read_text()
    assert "This run was not private" in page
