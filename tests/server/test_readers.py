"""Whoever reads a run while it is written sees whole records only."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.events import CycleFinished, PhaseProgress
from fedoel.protocol.records.summary import CycleRecord, Floor, Floors, Stats, Summary
from fedoel.server.events import EventLog, read_events
from fedoel.server.summary import read_summary, update_summary

STATS = Stats(win_rate=0.5, low=0.2, high=0.8, episodes=3, score=0.5, turns_per_win=2.0, tokens_per_win=9.0)
FLOOR = Floor(
    win_rate=0.5, low=0.2, high=0.8, episodes=3, score=0.5, turns_per_win=2.0, tokens_per_win=9.0, families={}
)  # fmt: skip
CYCLES = 150


def record(cycle: int) -> CycleRecord:
    return CycleRecord(
        cycle=cycle, version=f"v{cycle}", decision="promoted", reason="it won; " * 200, held_out=STATS, families={},
        teacher=None, gate=None, lessons=(), kl=0.1, uplink_bytes=1.0, downlink_bytes=1.0, accepted=2, refused={},
        adapter_bytes=9, seconds={"collect": 0.1},
    )  # fmt: skip


def write(run: Path, ended: Event) -> None:
    """Do what a run does."""
    config = RunConfig(cycles=CYCLES).to_flat()
    floors = Floors(random=FLOOR, heuristic=FLOOR, walkthrough=FLOOR)
    head = Summary(scenario="x", seed=0, engine="e", private=False, config=config, floors=floors, cycles=())
    with EventLog(run / "events.jsonl") as log:
        for cycle in range(CYCLES + 1):
            log.emit(PhaseProgress(cycle=cycle, phase="collect", done=1, total=2))
            log.emit(CycleFinished(cycle=cycle, entry=record(cycle)))
            update_summary(run, head, cycle, due=cycle == CYCLES)
    ended.set()


@pytest.fixture
def often() -> Iterator[None]:
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    yield
    sys.setswitchinterval(before)


def test_a_reader_sees_whole_records_and_no_cycle_is_lost_again(tmp_path: Path, often: None) -> None:
    ended = Event()
    writer = Thread(target=write, args=(tmp_path, ended))
    writer.start()
    seen, looks = 0, 0
    while not ended.is_set():
        if (tmp_path / "summary.json").exists():
            cycles = read_summary(tmp_path).cycles
            assert [each.cycle for each in cycles] == list(range(len(cycles))) and len(cycles) >= seen
            seen, looks = len(cycles), looks + 1
            assert len(read_events(tmp_path / "events.jsonl")) >= 2 * seen
    writer.join()
    assert looks > 5 and read_summary(tmp_path).cycles == tuple(record(cycle) for cycle in range(CYCLES + 1))


def test_a_record_that_is_being_written_is_not_there_yet(tmp_path: Path) -> None:
    write(tmp_path, Event())
    log = tmp_path / "events.jsonl"
    whole = log.read_bytes()
    (tmp_path / "summary.json").write_bytes(
        (tmp_path / "summary.json").read_bytes().replace(b'"cycles": 150', b'"cycles": 151')
    )
    for more in (b'{"event": "cycle_finished", "t": 1.0, "cyc', b'{"event": "cycle_finished", "cycle": 151'):
        log.write_bytes(whole + more)
        assert len(read_summary(tmp_path).cycles) == CYCLES + 1


@pytest.mark.parametrize("cycles", [[1], [0, 1, 1], [1, 0], [0, 2]])
def test_a_summary_whose_cycles_were_edited_by_hand_is_refused(cycles: list[int], tmp_path: Path) -> None:
    """Figures take the records for the cycles from 0 on, in their order."""
    write(tmp_path, Event())
    path = tmp_path / "summary.json"
    table = json.loads(path.read_bytes())
    table["cycles"] = [table["cycles"][cycle] for cycle in cycles]
    path.write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=rf"has the cycles {', '.join(map(str, cycles))}, and not each of them once"):
        read_summary(tmp_path)
