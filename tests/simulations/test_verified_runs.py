"""What `fedoel verify` finds where a journal was cut off or written again by whoever has the fleet's key."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.records.journal import FIRST, new_line, read_line
from fedoel.server.cycle import server as cycle_server
from fedoel.server.fleet import owner_key
from fedoel.server.run_folder import own_folder, prepare_folder
from fedoel.server.run_location import RunLocation, locate
from fedoel.server.verify import verify
from fedoel.server.version_list import VersionList

from .test_versions_of_a_run import Stopped, cycles, play, small


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> RunConfig:
    return small(tmp_path / "run", cache)


def test_lines_that_are_cut_off_are_found_by_what_the_summary_tells(config: RunConfig) -> None:
    play(config)
    run = Path(config.out)
    place, journal, summary = locate(run), run / "journal.jsonl", run / "summary.json"
    lines, told = journal.read_bytes().splitlines(keepends=True), json.loads(summary.read_bytes())
    assert not verify(place).problems
    journal.write_bytes(b"".join(lines[:-1]))
    assert ["lacks the end of the run" in problem for problem in verify(place).problems] == [True]
    with own_folder(replace(config, resume=True)):
        assert not verify(place).problems, "it goes on"
    kinds = [json.loads(line)["kind"] for line in lines]
    assert kinds[-2:] == ["decided", "ended"]
    told["cycles"][-1]["decision"] = "rejected"
    summary.write_text(json.dumps(told))
    journal.write_bytes(b"".join(lines[:-2]))
    assert any("summary.json tells of cycle 3, of which journal.jsonl" in one for one in verify(place).problems)
    journal.write_bytes(lines[0])
    told_of = [problem for problem in verify(place).problems if "tells of cycle" in problem]
    assert [int(problem.split("cycle ")[1][0]) for problem in told_of] == [0, 1, 2, 3]


@pytest.mark.parametrize("left", [0, 300])
def test_a_journal_without_a_whole_line_is_not_an_absent_one(config: RunConfig, left: int) -> None:
    play(config)
    journal, place = Path(config.out) / "journal.jsonl", locate(Path(config.out))
    whole = journal.read_bytes()
    journal.write_bytes(whole[:left])
    assert whole.index(b"\n") > left and [one for one in verify(place).problems if "has no whole line" in one]
    journal.unlink()
    assert not verify(place).problems, "as of a fedoel without a journal"


@pytest.mark.parametrize("torn", [b"", b'{"number": 1, "prev'])
def test_a_run_that_was_killed_in_the_first_line_of_its_journal_goes_on(config: RunConfig, torn: bytes) -> None:
    prepare_folder(config)
    (Path(config.out) / "journal.jsonl").write_bytes(torn)
    play(replace(config, resume=True))
    assert not verify(locate(Path(config.out))).problems


def test_a_run_that_is_killed_as_a_cycle_ends_is_not_taken_for_a_forged_one(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is killed before the journal, the summary, and the journal's last line are written."""
    place = RunLocation(Path(config.out), Path(config.out) / "keys")
    for step, cycle, notes, problems in (("note", 2, 1, 0), ("update_summary", 3, 0, 0), ("note_end", 3, 0, 1)):
        original = getattr(cycle_server, step)

        def until_killed(*arguments: Any, cycle: int = cycle, original: Any = original, **named: Any) -> None:
            if len(VersionList(place).records) > cycle:
                raise Stopped
            original(*arguments, **named)

        with monkeypatch.context() as patched, pytest.raises(Stopped):
            patched.setattr(cycle_server, step, until_killed)
            play(replace(config, resume=place.run.exists()))
        result = verify(place)
        assert len(result.notes) == notes and len(result.problems) == problems
    play(replace(config, resume=True))
    assert not verify(place).problems and len(cycles(config)) == 4


@pytest.mark.parametrize(
    ("strategy", "options", "least"),
    [("secure-mean", "", 6), ("grouped-secure", "", 3), ("grouped-secure", "group-size=3", 2), ("mean", "", 1)],
)
def test_a_cohort_is_not_smaller_than_the_run_s_configuration_demands(
    strategy: str, options: str, least: int, config: RunConfig
) -> None:
    """Also where whoever has the fleet's key has written another chain, which says that the sum was none."""
    many: dict[str, Any] = {"clients": 8, "cycles": 1, "strategy.name": strategy, "strategy.options": options}
    play(RunConfig.from_flat({**config.to_flat(), **many}))
    place = locate(Path(config.out))
    assert not verify(place).problems
    for cohort_size in range(least - 1, 9):
        write_again(place, {"exchanges": [{"version": "", "cohort": cohort_size, "noise": 0.0}], "secure": False})
        problems = verify(place).problems
        says = f"a cohort of {cohort_size}, and by config.json a sum is over {least}"
        said = says if cohort_size else "cycle 1 is promoted, and no device took part in it"
        assert [said in problem for problem in problems] == [True] * (cohort_size < least)


def write_again(place: RunLocation, changes: dict[str, Any]) -> None:
    """Write a chain with another line on cycle 1, each line of which the fleet's key signs."""
    lines, previous = list[bytes](), FIRST
    for entry in map(read_line, (place.run / "journal.jsonl").read_bytes().splitlines()):
        changed = changes if entry.kind == "decided" and entry.values["cycle"] == 1 else {}
        values = {**entry.values, **changed}
        lines.append(new_line(owner_key(place.keys), entry.number, previous, entry.kind, values) + b"\n")
        previous = read_line(lines[-1][:-1]).digest
    (place.run / "journal.jsonl").write_bytes(b"".join(lines))
