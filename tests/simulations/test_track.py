"""Curves in TensorBoard and Trackio: what they hold, and that neither can end a run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.cli import simulate
from fedoel.cli.main import REFUSED, main
from fedoel.protocol.config import RunConfig
from fedoel.protocol.records.events import CycleFinished, Event
from fedoel.protocol.records.summary import CycleRecord
from fedoel.server.evaluation import UNKNOWN
from fedoel.simulations import track
from fedoel.simulations.track import PROJECT, TRACKERS, curves, tracked

from .conftest import record

RECORDS = [record(0, 0.2), replace(record(1, 0.5), epsilon=1.5)]
EVENTS = [CycleFinished(cycle=each.cycle, entry=each) for each in RECORDS]


def test_the_command_knows_the_trackers() -> None:
    assert tuple(TRACKERS) == simulate.TRACKERS


def test_curves_are_the_numbers_of_a_cycle_and_leave_out_what_was_not_measured() -> None:
    found = curves(RECORDS[1])
    assert (found["held-out/success"], found["gate/promoted"], found["privacy/epsilon"]) == (0.5, 1.0, 1.5)
    assert found["held-out/tokens-per-win"] == RECORDS[1].held_out.tokens_per_win
    assert found["bytes/up"] == RECORDS[1].uplink_bytes and "family/cooking" in found
    unknown = curves(replace(RECORDS[1], held_out=UNKNOWN, gate=None))
    assert not [name for name in unknown if name.startswith(("held-out", "family"))]
    assert "gate/candidate" in found and "gate/candidate" not in unknown


def test_tensorboard_reads_what_a_run_has_written(tmp_path: Path) -> None:
    reason = "pip install 'fedoel[tensorboard]'"
    pytest.importorskip("torch", reason=reason)
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator", reason=reason)
    seen: list[Event] = []
    with tracked(["tensorboard"], RunConfig(out=str(tmp_path)), seen.append) as listener:
        for event in EVENTS:
            listener(event)
    assert seen == EVENTS
    read = accumulator.EventAccumulator(str(tmp_path / track.FOLDER))
    read.Reload()
    written = {name: [(point.step, point.value) for point in read.Scalars(name)] for name in read.Tags()["scalars"]}
    assert written.keys() == curves(RECORDS[0]).keys() | curves(RECORDS[1]).keys()
    assert written["held-out/success"] == [(0, pytest.approx(0.2)), (1, pytest.approx(0.5))]
    [text] = [name for name in read.Tags()["tensors"] if name.startswith("gate/decision")]
    [value] = read.Tensors(text)[1].tensor_proto.string_val
    assert value.decode() == f"{RECORDS[1].decision}: {RECORDS[1].reason}"


def test_trackio_reads_what_a_run_has_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path))
    for name in ("TRACKIO_SPACE_ID", "TRACKIO_SERVER_URL"):
        monkeypatch.delenv(name, raising=False)
    trackio = pytest.importorskip("trackio", reason="trackio is not installed: pip install 'fedoel[trackio]'")
    storage = pytest.importorskip("trackio.sqlite_storage")
    config = RunConfig(out=str(tmp_path / "run"))
    for resume, event in zip((False, True), EVENTS, strict=True):
        with tracked(["trackio"], replace(config, resume=resume), lambda event: None) as listener:
            listener(event)
    [run] = [run for run in trackio.Api().runs(PROJECT) if run.name == config.out]
    points = storage.SQLiteStorage.get_logs(PROJECT, run.name, run_id=run.id)
    assert [(point["step"], point["held-out/success"], point["gate/decision"]) for point in points] == [
        (0, 0.2, "warm-start"), (1, 0.5, "promoted")
    ]  # fmt: skip


def test_a_tracker_that_fails_is_left_out_and_the_run_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logged: list[int] = []

    class Full:
        def __init__(self, config: RunConfig) -> None: ...

        def log(self, record: CycleRecord) -> None:
            logged.append(record.cycle)
            raise OSError("the disk is full")

        def close(self) -> None: ...

    def never(config: RunConfig) -> Full:
        raise RuntimeError("there is no server")

    monkeypatch.setattr(track, "TRACKERS", {"tensorboard": Full, "trackio": never})
    seen: list[Event] = []
    with tracked(["tensorboard", "trackio"], RunConfig(), seen.append) as listener:
        for event in EVENTS:
            listener(event)
    assert (seen, logged) == (EVENTS, [0])
    lines = capsys.readouterr().err.splitlines()
    assert ["the disk is full" in lines[1], "there is no server" in lines[0], len(lines)] == [True, True, 2]


def test_a_tracker_that_is_not_installed_is_refused_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(track, "find_spec", lambda name: None)
    assert main(["simulate", "--track", "trackio", "--out", str(tmp_path / "run")]) == REFUSED
    assert "pip install 'fedoel[trackio]'" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
