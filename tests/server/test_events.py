"""The event log: what is written can be read, whatever happened to the process."""

from __future__ import annotations

import json
import resource
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.records.events import Decided, Event, PhaseFinished, PhaseProgress, PhaseStarted, RunFinished
from fedoel.server.events import EventLog, read_events, seconds_by_phase


def summaries(path: Path) -> list[str]:
    return [event.summary for event in read_events(path) if isinstance(event, RunFinished)]


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_listener_hears_what_the_file_says(tmp_path: Path) -> None:
    heard: list[Event] = []
    path = tmp_path / "new" / "events.jsonl"
    with EventLog(path, heard.append) as log:
        log.emit(RunFinished(summary="summary.json"))
        log.emit(Decided(cycle=np.int64(1), decision="promoted", reason="more wins", version="v-1"))  # type: ignore[arg-type]
    assert read_events(path) == heard
    assert [type(event) for event in heard] == [RunFinished, Decided]
    assert '"cycle": 1' in path.read_text()


def test_a_phase_says_progress_a_few_times_a_second_and_its_seconds(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "events.jsonl"
    with EventLog(path, clock=clock) as log, log.phase(1, "collect", total=100) as advance:
        for _ in range(100):
            clock.now += 0.01
            advance()
    events = read_events(path)
    progress = [event.done for event in events if isinstance(event, PhaseProgress)]
    assert progress == sorted(progress)
    assert 2 <= len(progress) <= 4
    assert seconds_by_phase(events, 1) == {"collect": 1.0}
    assert seconds_by_phase(events, 2) == {}


def test_a_run_that_is_held_begins_no_phase_and_goes_no_further_in_one(tmp_path: Path) -> None:
    steps, clock = list[str](), iter(range(100)).__next__
    with EventLog(tmp_path / "events.jsonl", lambda event: steps.append(type(event).__name__), clock) as log:
        log.hold = lambda: steps.append("held")
        with log.phase(1, "distil") as advance:
            advance()
    assert steps == ["held", "PhaseStarted", "held", "PhaseProgress", "PhaseFinished"]


def test_a_phase_that_fails_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log, pytest.raises(ZeroDivisionError), log.phase(0, "games"):
        _ = 1 / 0
    assert [type(event) for event in read_events(path)] == [PhaseStarted]


@pytest.mark.parametrize("torn", [b'{"event": "dec', b"\xff\x00", b"[1, 2", b"7"])
def test_a_torn_last_line_is_left_out_and_cut_off_on_resume(tmp_path: Path, torn: bytes) -> None:
    path, clock = tmp_path / "events.jsonl", Clock()
    with EventLog(path, clock=clock) as log:
        clock.now += 5
        log.emit(RunFinished(summary="a"))
    path.write_bytes(path.read_bytes() + torn)
    assert len(read_events(path)) == 1
    with EventLog(path, clock=clock) as log:
        clock.now += 1
        log.emit(RunFinished(summary="b"))
    assert read_events(path) == [RunFinished(t=5.0, summary="a"), RunFinished(t=6.0, summary="b")]


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.emit(RunFinished(summary="a"))
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with EventLog(path) as log:
        log.emit(RunFinished(summary="b"))
    assert summaries(path) == ["a", "b"]


@pytest.mark.parametrize(
    "event",
    [
        PhaseFinished(cycle=1, phase="gate", seconds=float("nan")),
        PhaseFinished(cycle=1, phase="gate", seconds=cast(Any, "long")),
        RunFinished(summary=cast(Any, {"text": "a room"})),
        Event(),
    ],
)
def test_nothing_but_fields_of_the_known_types_is_written(tmp_path: Path, event: Event) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log, pytest.raises(ValueError, match=r"event|JSON|must be"):
        log.emit(event)
    assert path.read_bytes() == b""


LINE = '{"event": "run_finished", "t": 0, "summary": "x"}'


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (f"{LINE}\nnonsense\n{LINE}\n", "line 2 is not an event"),
        ('{"event": "observation", "t": 0, "text": "a room"}\n', "line 1: event 'observation' is none of run_started"),
        (LINE.replace('"summary"', '"text"'), "line 1: text is not a field"),
        (LINE.replace('"x"', "7"), "line 1: summary must be a text, not 7"),
        (LINE.replace('"t"', '"schema": 3, "t"'), "is of schema 3 and this fedoel reads up to 2: update fedoel"),
    ],
)
def test_a_damaged_or_newer_log_is_refused(tmp_path: Path, text: str, says: str) -> None:
    path = tmp_path / "events.jsonl"
    path.write_text(text)
    with pytest.raises(ConfigError, match=says):
        read_events(path)


def test_a_missing_log_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="folder of a run"):
        read_events(tmp_path / "events.jsonl")


def test_the_first_line_says_the_schema_and_logs_without_it_are_read(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    for _ in range(2):
        with EventLog(path) as log:
            log.emit(RunFinished(summary="a"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line.get("schema") for line in lines] == [2, None]
    path.write_text("".join(json.dumps({**line, "schema": 1}) + "\n" for line in lines).replace(', "schema": 1', ""))
    assert summaries(path) == ["a", "a"]


def test_a_line_that_did_not_fit_on_the_disk_is_said_and_cut_off_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventLog(path) as log:
        log.emit(RunFinished(summary="a"))
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        try:
            for _ in range(2):  # the first is cut, the second does not begin
                with pytest.raises(FedoelError, match="make room and go on with --resume"):
                    log.emit(RunFinished(summary="b"))
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with EventLog(path) as log:
        log.emit(RunFinished(summary="c"))
    assert summaries(path) == ["a", "c"]


def test_a_log_has_one_writer(tmp_path: Path) -> None:
    """A server that has outlived the command that started it holds its run's log."""
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.emit(RunFinished(summary="a"))
        with pytest.raises(ConfigError, match=r"another process writes .*: wait until it ends, or stop it"):
            EventLog(path).__enter__()
        log.emit(RunFinished(summary="b"))
    with EventLog(path) as log:
        log.emit(RunFinished(summary="c"))
    assert summaries(path) == ["a", "b", "c"]


def test_a_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FedoelError, match="choose another folder"):
        EventLog(tmp_path / "file" / "events.jsonl").__enter__()
