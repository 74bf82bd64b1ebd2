"""A run that Flower never begins is not waited for without end."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

from fedoel.protocol.errors import FedoelError
from fedoel.server.operate import run_app
from fedoel.server.operate.run_app import Beginning


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "run.log"
    path.write_text("started run 17\nno executor\n")
    return path


def status_is(monkeypatch: pytest.MonkeyPatch, status: str) -> list[str]:
    asked: list[str] = []

    def answer(run: str, connection: str, environment: Mapping[str, str]) -> str:
        asked.append(run)
        return status

    monkeypatch.setattr(run_app, "run_status", answer)
    return asked


@pytest.mark.parametrize("status", ["pending", "starting", "not started"])
def test_a_run_that_stays_pending_is_given_up(log: Path, monkeypatch: pytest.MonkeyPatch, status: str) -> None:
    asked, clock = status_is(monkeypatch, status), Clock()
    beginning = Beginning(log, "local", {}, seconds=60.0, clock=clock)
    clock.now = 59.0
    beginning.check()
    assert asked == []
    clock.now = 61.0
    with pytest.raises(FedoelError, match=f"left the run '{status}' for 60 s: .* no process(?s:.*)no executor"):
        beginning.check()
    assert asked == ["17"]


def test_a_run_that_runs_or_has_logged_an_event_is_waited_for(log: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked, clock = status_is(monkeypatch, "running"), Clock()
    beginning = Beginning(log, "local", {}, seconds=60.0, clock=clock)
    clock.now = 61.0
    beginning.check()
    clock.now = 120.0
    beginning.check()
    assert asked == ["17"], "asked once in the time"
    status_is(monkeypatch, "pending")
    beginning.begun, clock.now = True, 1000.0
    beginning.check()
