"""The event log: what is written can be read, whatever happened to the process."""

from __future__ import annotations

import resource
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.server.events import EventLog, read_events, seconds_by_phase


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_the_listener_hears_what_the_file_says(tmp_path: Path) -> None:
    heard: list[dict[str, Any]] = []
    path = tmp_path / "new" / "events.jsonl"
    with EventLog(path, heard.append) as log:
        log.emit("run_finished", summary=tmp_path / "summary.json")
        log.emit("decision", cycle=np.int64(1), decision="promoted", reason="more wins", version="v-1")
    assert read_events(path) == heard
    assert [event["event"] for event in heard] == ["run_finished", "decision"]
    assert heard[1]["cycle"] == 1


def test_a_phase_says_progress_a_few_times_a_second_and_its_seconds(tmp_path: Path) -> None:
    clock, path = Clock(), tmp_path / "events.jsonl"
    with EventLog(path, clock=clock) as log, log.phase(1, "collect", total=100) as advance:
        for _ in range(100):
            clock.now += 0.01
            advance()
    events = read_events(path)
    progress = [event["done"] for event in events if event["event"] == "phase_progress"]
    assert progress == sorted(progress)
    assert 2 <= len(progress) <= 4
    assert seconds_by_phase(events, 1) == {"collect": 1.0}
    assert seconds_by_phase(events, 2) == {}


def test_a_phase_that_fails_is_not_finished(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log, pytest.raises(ZeroDivisionError), log.phase(0, "games"):
        _ = 1 / 0
    assert [event["event"] for event in read_events(path)] == ["phase_started"]


@pytest.mark.parametrize("torn", [b'{"event": "dec', b"\xff\x00", b"[1, 2", b"7"])
def test_a_torn_last_line_is_left_out_and_cut_off_on_resume(tmp_path: Path, torn: bytes) -> None:
    path, clock = tmp_path / "events.jsonl", Clock()
    with EventLog(path, clock=clock) as log:
        clock.now += 5
        log.emit("run_finished", summary="a")
    path.write_bytes(path.read_bytes() + torn)
    assert len(read_events(path)) == 1
    with EventLog(path, clock=clock) as log:
        clock.now += 1
        log.emit("run_finished", summary="b")
    assert [(event["summary"], event["t"]) for event in read_events(path)] == [("a", 5.0), ("b", 6.0)]


def test_a_last_line_that_lacks_only_its_end_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log:
        log.emit("run_finished", summary="a")
    path.write_bytes(path.read_bytes().rstrip(b"\n"))
    with EventLog(path) as log:
        log.emit("run_finished", summary="b")
    assert [event["summary"] for event in read_events(path)] == ["a", "b"]


@pytest.mark.parametrize(
    ("event", "fields"),
    [
        ("observation", {"text": "a room"}),
        ("run_finished", {"summary": "x", "text": "a room"}),
        ("run_finished", {}),
        ("phase_finished", {"cycle": 1, "phase": "gate", "seconds": float("nan")}),
    ],
)
def test_nothing_but_the_known_fields_is_written(tmp_path: Path, event: str, fields: dict[str, Any]) -> None:
    path = tmp_path / "events.jsonl"
    with EventLog(path) as log, pytest.raises(ValueError, match=r"event|JSON"):
        log.emit(event, **fields)
    assert path.read_bytes() == b""


def test_a_damaged_or_missing_log_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    with pytest.raises(ConfigError, match="folder of a run"):
        read_events(path)
    path.write_text('{"event": "x", "t": 0}\nnonsense\n{"event": "y", "t": 1}\n')
    with pytest.raises(ConfigError, match="line 2"):
        read_events(path)


def test_a_line_that_did_not_fit_on_the_disk_is_said_and_cut_off_later(tmp_path: Path) -> None:
    path = tmp_path / "events.jsonl"
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    with EventLog(path) as log:
        log.emit("run_finished", summary="a")
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 10, before[1]))
        try:
            for _ in range(2):  # the first is cut, the second does not begin
                with pytest.raises(FedoelError, match="make room and go on with --resume"):
                    log.emit("run_finished", summary="b")
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
    with EventLog(path) as log:
        log.emit("run_finished", summary="c")
    assert [event["summary"] for event in read_events(path)] == ["a", "c"]


def test_a_log_that_cannot_be_opened_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FedoelError, match="choose another folder"):
        EventLog(tmp_path / "file" / "events.jsonl").__enter__()
