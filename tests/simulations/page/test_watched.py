"""The page of a run's folder, whatever state its files are in."""

from __future__ import annotations

import json
import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.health import SHAPE
from fedoel.protocol.records.journal import CURRENT
from fedoel.protocol.records.summary import PrivacyPromise, Summary
from fedoel.server.events import LOG
from fedoel.server.fleet import make_fleet
from fedoel.server.health import fleet_health
from fedoel.server.journal import OPERATOR, open_journal
from fedoel.server.operate.folder import ServerFolder, Settings, write_settings
from fedoel.server.version_list import VersionList
from fedoel.simulations.page import watched as watched_module
from fedoel.simulations.page.render import render
from fedoel.simulations.page.watched import Watched
from fedoel.simulations.report import write_report
from fedoel.simulations.summary import load_summary

from .conftest import Save


def shown(folder: Path) -> str:
    return render(Watched(folder).view())


def test_the_page_shows_result_decisions_lessons_devices_bytes_and_versions(folder: Path) -> None:
    page = shown(folder)
    for part in ("went from 21\N{NO-BREAK SPACE}%", "finished after", "gate wins 43 % -", "decision rejected", "+1.42"):
        assert part in page
    for part in ("1 another policy version", "38.0 kB", "9.6 MB", "The server saw every vector"):
        assert part in page
    for part in ("walkthrough 100 %", "random play 20 %", "tactics only 38 %", "teacher 61 %", "learned 52 %"):
        assert part in page
    assert f"fedoel rollback {folder}" in page and "fedoel diff" in page and "fedoel play --run" in page
    assert "<td class=short>current</td><td class=short>v-0003a1</td><td class=short>v-0002a1</td>" in page


def operator_chooses(run: Path, version: str) -> None:
    make_fleet(run / "keys", 2)
    open_journal(run, run / "keys").add(CURRENT, version=version, by=OPERATOR, cycle=3, reason="rolled back")


@pytest.mark.parametrize(
    ("version", "won", "headline"),
    [
        ("v-0001a1", "36 % 95 % interval 29-43 %; 21 % before", "of cycle 1 current. It won 36 % (29-43 %) of 200"),
        (
            "v-0000a1",
            "21 % 95 % interval 15-27 %",
            "of cycle 0 current. It won 21 % (15-27 %) of 200 held-out games; rand",
        ),
    ],
)
def test_after_a_rollback_figures_and_headline_are_of_the_chosen_version(
    version: str, won: str, headline: str, folder: Path
) -> None:
    operator_chooses(folder, version)
    view = Watched(folder).view()
    assert not view.problems and f"version {version} {headline}" in view.headline
    assert f"{view.figures[0].value} {view.figures[0].note}" == won
    assert view.figures[1].note == f"cycles; version {version} is current, which an operator chose"
    for page in (shown(folder), write_report(folder).read_text(encoding="utf-8")):
        assert "v-0003a1 plays" not in page and "went from" not in page and f"{version} is current" in page


def test_a_refused_candidate_that_an_operator_promotes_has_no_result_of_held_out_games(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its trial played other games."""
    monkeypatch.setattr(VersionList, "candidate_of", lambda self, record: "v-0002c1")
    operator_chooses(folder, "v-0002c1")
    view = Watched(folder).view()
    assert view.headline.endswith("version v-0002c1 of cycle 2 current. How often it wins is not measured.")
    assert (view.figures[0].value, view.figures[0].note) == ("not measured", "wins of held-out games")


def test_in_a_fleet_that_reports_trials_a_chosen_version_has_won_its_trial(
    tmp_path: Path, save: Save, fleets: dict[str, Summary]
) -> None:
    first, second = fleets["told"].cycles
    third = replace(second, cycle=2, version="v-0002a1", held_out=first.held_out)
    folder = save(tmp_path / "run", replace(fleets["told"], cycles=(first, second, third)))
    (folder / "config.json").write_text(json.dumps(dict(fleets["told"].config)))
    operator_chooses(folder, second.version)
    assert "In its trial it won 75 % (45-100 %) of the fleet's own games." in Watched(folder).view().headline


def test_lessons_have_a_row_each_with_their_weight_in_every_cycle(tmp_path: Path, save: Save, summary: Summary) -> None:
    first, *rest, last = summary.cycles
    weaker = tuple(replace(lesson, weight=lesson.weight / 2) for lesson in last.lessons[1:])
    page = shown(save(tmp_path / "run", replace(summary, cycles=(first, *rest, replace(last, lessons=weaker)))))
    row = next(row for row in page.split("<tr>") if "where you have not been" in row)
    assert re.findall(r">([+-][\d.]+)<", row) == ["+0.39", "+0.77", "+0.77"]
    row = next(row for row in page.split("<tr>") if "that the goal names" in row)
    assert re.findall(r">([+-][\d.]+|)</td>", row) == ["", "+1.42", "+1.42"]


def test_the_budget_says_what_is_spent_and_what_is_left(tmp_path: Path, save: Save, summary: Summary) -> None:
    promise = PrivacyPromise(mechanism="distributed", secure_sum=True, epsilon=8.0, delta=1e-6)
    cycles = tuple(replace(record, epsilon=1.5 * record.cycle) for record in summary.cycles)
    page = shown(save(tmp_path / "run", replace(summary, private=True, privacy=promise, cycles=cycles)))
    assert "of 8 at delta 1e-06; 3.50 left" in page
    assert "<td class=short>4.500</td><td class=short>3.500</td>" in page
    assert "Privacy budget" not in shown(save(tmp_path / "open", summary))


def test_the_health_of_the_fleet_is_shown_by_class_where_devices_said_it(
    tmp_path: Path, save: Save, summary: Summary
) -> None:
    counts = np.zeros(SHAPE)
    counts[1] = [40, 2, 0, 0, 40, 0, 0, 0, 40, 0, 0]
    *first, last = summary.cycles
    told = replace(summary, cycles=(*first, replace(last, health=fleet_health(counts, 0.0))))
    page = shown(save(tmp_path / "run", told))
    for part in (
        "Fleet health, cycle 3",
        "3 to 12 GB",
        "2 of 40 (1-17 %)",
        "0.1 to 1 s: 40 of 40",
        "300 to 600 MB: 40 of 40",
    ):
        assert part in page
    assert "below 3 GB" not in page and "Fleet health" not in shown(save(tmp_path / "silent", summary))
    noisy = replace(summary, cycles=(*first, replace(last, health=fleet_health(counts, 400.0))))
    page = shown(save(tmp_path / "noisy", noisy))
    assert "below 3 GB" in page and "too noisy to say" in page and "the noise of privacy included" in page


def test_a_run_shows_what_it_does_before_its_first_cycle_has_ended(folder: Path) -> None:
    (folder / "summary.json").unlink()
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)
    (folder / LOG).write_bytes(b"".join(lines[:2]) + lines[2][:20])  # the third is being written
    page = shown(folder)
    assert "No cycle has ended yet" in page and "cycle 0 of 3: model, 0 of 3; last event 20" in page
    assert "problem" not in page.split("</style>")[1]


def test_a_running_simulation_has_no_tactics_only_floor_yet(tmp_path: Path, save: Save, summary: Summary) -> None:
    lacking = replace(summary, floors=replace(summary.floors, tactics_only=None))
    page = shown(save(tmp_path / "run", lacking))
    assert "learned 52 %" in page and "tactics only" not in page


def test_the_log_is_read_on_from_where_it_ended(folder: Path) -> None:
    content = (folder / LOG).read_bytes()
    lines = content.splitlines(keepends=True)
    watched, states = Watched(folder), []
    for upto in (1, 3, len(lines) - 1, len(lines)):
        (folder / LOG).write_bytes(b"".join(lines[:upto]))
        states.append(watched.view().state.partition(";")[0])
    assert states[:3] == ["started", "cycle 0 of 3: model, 0 of 3", "cycle 3 of 3: replay, 0 of 3"]
    assert states[3].startswith("finished after")
    (folder / LOG).write_bytes(b"".join(lines[:1]))  # another log in its place
    assert watched.view().state.startswith("started")


def test_records_are_not_read_again_for_every_event(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A year of events must not make a look at the page cost more than what is new."""
    reads = list[Path]()

    def counted(run: Path, *, ended: bool) -> Summary:
        reads.append(run)
        return load_summary(run, ended=ended)

    monkeypatch.setattr(watched_module, "load_summary", counted)
    lines = (folder / LOG).read_bytes().splitlines(keepends=True)
    (folder / LOG).write_bytes(b"".join(lines[:3]))
    watched = Watched(folder)
    for line in lines[3:6]:
        watched.view()
        with (folder / LOG).open("ab") as file:
            file.write(line)
    assert len(reads) == 1
    (folder / LOG).write_bytes(b"".join(lines))
    watched.view()
    assert len(reads) == 2


def test_lessons_of_many_cycles_are_the_recent_ones(tmp_path: Path, save: Save, summary: Summary) -> None:
    first, second, *_ = summary.cycles
    many = tuple(replace(second, cycle=number) for number in range(1, 40))
    page = shown(save(tmp_path / "run", replace(summary, cycles=(first, *many))))
    assert "<th scope=col>cycle 39</th>" in page and "cycle 16</th>" in page and "cycle 15</th>" not in page


@pytest.mark.parametrize("name", ["summary.json", "events.jsonl", "journal.jsonl", "config.json"])
@pytest.mark.parametrize(
    "content", [b"", b"not json\n\n{", b"\xff\xfe\n\n1", b"[]\n", b'{"cycles": [{}]}\n{}\n', b"1\n"]
)
def test_a_damaged_file_is_a_sentence_on_the_page(folder: Path, name: str, content: bytes) -> None:
    (folder / name).write_bytes(content)
    view = Watched(folder).view()
    assert "<h1>" in render(view)
    assert view.problems or (content == b"" and name != "summary.json")
    assert all(name.partition(".")[0] in problem or "journal" in problem for problem in view.problems)


@pytest.mark.parametrize(("field", "value"), [("kl", float("nan")), ("lessons", 1), ("accepted", None)])
def test_a_summary_that_is_damaged_within_leaves_the_rest(folder: Path, field: str, value: object) -> None:
    table = json.loads((folder / "summary.json").read_text())
    table["cycles"][1][field] = value
    (folder / "summary.json").write_text(json.dumps(table))
    assert "finished after" in shown(folder)


def test_numbers_that_cannot_be_shown_are_a_sentence(folder: Path) -> None:
    text = (folder / "summary.json").read_text()
    (folder / "summary.json").write_text(text.replace('"support": 318', '"support": NaN'))
    view = Watched(folder).view()
    assert len(view.problems) == 1 and "summary.json" in view.problems[0]


def test_text_of_devices_and_scenarios_is_escaped(tmp_path: Path, save: Save, summary: Summary) -> None:
    attack = "<script>alert(1)</script>\"'{{ 7 * 7 }}"
    first, second, *rest = summary.cycles
    bad = replace(second.lessons[0], tactic=attack)
    worse = replace(second, reason=attack, decision=attack, version=attack, lessons=(bad,), refused={attack: 2})
    cycles = (first, worse, *rest)
    page = shown(save(tmp_path / "run", replace(summary, scenario=attack, cycles=cycles)))
    assert "<script" not in page and "{{ 7 * 7 }}" in page and page.count("&lt;script&gt;") >= 6
    assert "&#34;&#39;" in page and 'class="decision <' not in page


def test_watching_changes_nothing(folder: Path) -> None:
    def state() -> dict[str, tuple[bytes, int]]:
        return {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in folder.rglob("*") if path.is_file()}

    before = state()
    os.chmod(folder, 0o500)
    try:
        Watched(folder).view()
    finally:
        os.chmod(folder, 0o700)
    assert state() == before


def test_a_server_folder_shows_its_run_and_how_many_devices_are_enrolled(
    tmp_path: Path, save: Save, fleets: dict[str, Summary]
) -> None:
    server = ServerFolder(tmp_path / "fleet")
    write_settings(server, Settings(("fleet.example",), 8443, "127.0.0.1:9092"))
    waiting = shown(server.path)
    assert "No cycle has ended yet" in waiting
    save(server.run, fleets["told"])
    (server.run / "config.json").write_text(json.dumps(dict(fleets["told"].config)))
    page = shown(server.path)
    assert "0 devices enrolled, 0 revoked" in page and "the fleet&#39;s own games" in page
    assert f"fedoel rollback {server.path}" in page and f"fedoel play --run {server.path}" in page


def test_a_folder_without_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="neither the folder of a run nor that of a server"):
        Watched(tmp_path)


def test_the_report_is_the_same_page_without_versions(run: Path) -> None:
    page, report = shown(run), write_report(run).read_text(encoding="utf-8")
    assert page == report
