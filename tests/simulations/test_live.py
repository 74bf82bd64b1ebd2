"""The live view: driven by events alone, as a panel or as lines."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from fedoel.protocol.config import RunConfig
from fedoel.protocol.records.events import CycleFinished, Event, PhaseProgress, PhaseStarted, TrafficCounted
from fedoel.protocol.records.summary import Summary
from fedoel.server.events import read_events
from fedoel.simulations.live import (
    SHOWN_CYCLES,
    Progress,
    after,
    live_view,
    panel,
    panel_view,
    plain_line,
    remaining,
    sparkline,
    traffic_words,
)


@pytest.fixture
def events(run: Path) -> list[Event]:
    return read_events(run / "events.jsonl")


def follow(events: list[Event]) -> Progress:
    progress = Progress()
    for event in events:
        progress = after(progress, event)
    return progress


def test_lines_are_written_where_there_is_no_terminal(events: list[Event]) -> None:
    stream = io.StringIO()
    progress = PhaseProgress(t=1.0, cycle=1, phase="collect", done=1, total=9)
    with live_view(RunConfig(), stream=stream) as listen:
        for event in [*events, *[progress] * 50]:
            listen(event)
    lines = stream.getvalue().splitlines()
    quiet = (PhaseStarted, PhaseProgress)
    assert len(lines) == len([event for event in events if not isinstance(event, quiet)])
    assert "\x1b" not in stream.getvalue()
    assert "20 clients" in lines[0]
    assert any("avoid: repeat a command" in line for line in lines)


def test_the_panel_shows_where_a_run_stands(events: list[Event]) -> None:
    until = next(
        i for i, e in enumerate(events) if isinstance(e, PhaseStarted) and (e.cycle, e.phase) == (3, "collect")
    )
    progress = follow([*events[: until + 1]])
    progress = after(progress, PhaseProgress(t=progress.now + 10, cycle=3, phase="collect", done=1, total=3))
    console = Console(file=io.StringIO(), width=110, force_terminal=True, record=True)
    console.print(panel(progress))
    text = console.export_text()
    for part in ("3 of 3", "collect", "1/3", "0:20 left", "▂▃▃", "36 % (29-43 %) of 200", "38.0 kB up", "do: take"):
        assert part in text
    assert "<here> & now" in text


def test_the_panel_draws_before_anything_is_known_and_after_the_end(events: list[Event]) -> None:
    for progress in (Progress(), Progress(phase="model"), follow(events)):
        console = Console(file=io.StringIO(), width=80, record=True)
        console.print(panel(progress))
        assert "not measured yet" in console.export_text() or progress.finished


def test_a_panel_follows_its_events(events: list[Event]) -> None:
    stream = io.StringIO()
    with panel_view(Console(file=stream, force_terminal=True, width=100), Progress()) as listen:
        for event in events:
            listen(event)
    assert "finished after" in stream.getvalue()


def test_a_cycle_told_twice_counts_once(events: list[Event]) -> None:
    told = [event for event in events if isinstance(event, CycleFinished)]
    assert [rate for _, rate in follow([*events, told[-1]]).rates] == [0.21, 0.36, 0.36, 0.52]
    assert [rate for _, rate in follow([*events, told[1]]).rates] == [0.21, 0.36]
    many = [replace(told[1], cycle=cycle) for cycle in range(1000)]
    assert [cycle for cycle, _ in follow([*events, *many]).rates] == [*range(1000 - SHOWN_CYCLES, 1000)]


def test_time_left_is_said_only_when_it_can_be_known() -> None:
    assert remaining(Progress(total=None, done=3)) is None
    assert remaining(Progress(total=10, done=0)) is None
    assert remaining(Progress(total=10, done=5, zero=2.0, now=6.0)) == 4.0


def test_sparkline_reaches_from_none_to_all() -> None:
    assert sparkline([0.0, 0.5, None, 1.0]) == "▁▅·█"


def test_wins_say_which_games_they_are_of(fleets: dict[str, Summary], summary: Summary) -> None:
    told, hidden, simulated = fleets["told"].cycles, fleets["hidden"].cycles, summary.cycles
    lines = [plain_line(CycleFinished(cycle=1, entry=cycles[1])) for cycles in (told, hidden, simulated)]
    assert [line.split("wins ")[1] for line in lines if line] == [
        "75 % (45-100 %) of 8 of the fleet's own games", "not measured", "36 % (29-43 %) of 200 held-out games",
    ]  # fmt: skip
    progress = follow([CycleFinished(cycle=record.cycle, entry=record) for record in hidden])
    assert ([rate for _, rate in progress.rates], progress.latest) == ([None, None], "not measured")


def test_traffic_is_said_per_client() -> None:
    event = TrafficCounted(cycle=1, uplink_bytes=4000, downlink_bytes=8_000_000, accepted=3, refused={"stale": 1})
    assert traffic_words(event) == "4.0 kB up, 8.0 MB down per client; 3 accepted, refused: 1 stale"
