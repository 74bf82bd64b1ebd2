"""A small run as its summary and its events say it, made by rule and not by playing."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from math import sqrt
from pathlib import Path

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.records.events import (
    CycleFinished,
    Decided,
    LessonsLearned,
    RunFinished,
    RunStarted,
    TrafficCounted,
)
from fedoel.protocol.records.summary import CycleRecord, Floor, Floors, GateRecord, Lesson, Results, Stats, Summary
from fedoel.server.evaluation import UNKNOWN
from fedoel.server.events import CYCLE_PHASES, FIRST_PHASES, EventLog
from fedoel.server.summary import write_summary

FAMILIES = ("coin-collector", "treasure-hunter", "cooking")
DECISIONS = ("warm-start", "promoted", "rejected", "promoted")
LESSONS = (
    Lesson("take the thing that the goal names", 1.42, 318),
    Lesson("go where you have not been", 0.77, 941),
    Lesson("repeat a command that did nothing <here> & now", -1.05, 402),
)


def stats(rate: float, episodes: int = 200) -> Stats:
    half = 1.96 * sqrt(rate * (1 - rate) / episodes)
    turns, tokens = (5.4, 812.0) if rate else (None, None)
    low, high = max(rate - half, 0.0), min(rate + half, 1.0)
    return Stats(
        win_rate=rate, low=low, high=high, episodes=episodes, score=rate, turns_per_win=turns, tokens_per_win=tokens
    )  # fmt: skip


def by_family(rate: float, names: tuple[str, ...]) -> dict[str, Stats]:
    shift = {name: 0.08 * (1 - number) for number, name in enumerate(names)}
    return {name: stats(min(max(rate + shift[name], 0.0), 1.0), 67) for name in names}


def floor(rate: float, names: tuple[str, ...]) -> Floor:
    return Floor.of(record(0, rate, names))


def record(cycle: int, rate: float, names: tuple[str, ...] = FAMILIES) -> CycleRecord:
    phases = CYCLE_PHASES if cycle else FIRST_PHASES
    return CycleRecord(
        cycle=cycle,
        version=f"v-{cycle:04x}a1",
        decision=DECISIONS[cycle],
        reason="the first version" if not cycle else "gate wins 43 % -> 51 %",
        held_out=stats(rate),
        teacher=Results.of(stats(min(rate + 0.09, 1.0))),
        families=by_family(rate, names),
        gate=GateRecord(current=stats(rate, 48), teacher=stats(rate, 48), candidate=stats(rate, 48)),
        lessons=LESSONS if cycle else (),
        kl=0.31 if cycle else 0.0,
        uplink_bytes=38_000 if cycle else 0,
        downlink_bytes=9_600_000 if cycle else 0,
        accepted=19 if cycle else 0,
        refused={"another policy version": 1} if cycle else {},
        adapter_bytes=480_000,
        seconds={phase: 2.5 + number for number, phase in enumerate(phases)},
    )


def make_summary(
    names: tuple[str, ...] = FAMILIES, rates: tuple[float, ...] = (0.21, 0.36, 0.36, 0.52), clients: int = 20
) -> Summary:
    tactics = tuple(floor(rate, names) for rate in (0.2, 0.3, 0.33, 0.38)[: len(rates)])
    return Summary(
        scenario="standard",
        seed=3,
        engine="inprocess",
        private=False,
        config=RunConfig(name="standard", seed=3, clients=clients, cycles=3).to_flat(),
        floors=Floors(
            random=floor(0.2, names),
            heuristic=floor(0.57, names),
            walkthrough=floor(1.0, names),
            tactics_only=Floor.of(record(0, tactics[-1].win_rate, names), tactics),
        ),
        cycles=tuple(record(cycle, rate, names) for cycle, rate in enumerate(rates)),
    )


def of_a_fleet(wins: Stats = UNKNOWN) -> Summary:
    """The summary of a deployment whose server has no games: one cycle, with these results of its trial."""
    nobody = Floor(**asdict(UNKNOWN), families={})
    first, second = (
        replace(record(cycle, 0.5, ()), held_out=seen, teacher=Results.of(seen), gate=gate)
        for cycle, seen, gate in (
            (0, UNKNOWN, None),
            (1, wins, GateRecord(current=UNKNOWN, teacher=wins, candidate=wins)),
        )
    )
    floors = Floors(random=nobody, heuristic=nobody, walkthrough=nobody)
    return replace(make_summary(), engine="flower", floors=floors, cycles=(first, second))


def write_events(path: Path, summary: Summary) -> None:
    with EventLog(path) as log:
        log.emit(
            RunStarted(
                scenario=summary.scenario, seed=summary.seed, engine=summary.engine, clients=20, cycles=3,
                config=summary.config,
            )
        )  # fmt: skip
        for item in summary.cycles:
            cycle = item.cycle
            for phase in item.seconds:
                with log.phase(cycle, phase, total=3) as advance:
                    advance(3)
            if cycle:
                log.emit(
                    TrafficCounted(
                        cycle=cycle, uplink_bytes=item.uplink_bytes, downlink_bytes=item.downlink_bytes,
                        accepted=item.accepted, refused=item.refused,
                    )
                )  # fmt: skip
                log.emit(LessonsLearned(cycle=cycle, lessons=item.lessons))
            log.emit(Decided(cycle=cycle, decision=item.decision, reason=item.reason, version=item.version))
            log.emit(CycleFinished(cycle=cycle, entry=item))
        log.emit(RunFinished(summary="summary.json"))


def write_run(folder: Path, summary: Summary | None = None) -> Path:
    summary = summary or make_summary()
    write_events(folder / "events.jsonl", summary)
    write_summary(folder, summary)
    return folder


@pytest.fixture
def summary() -> Summary:
    return make_summary()


@pytest.fixture
def one_family() -> Summary:
    return make_summary(FAMILIES[:1], (0.2, 0.5))


@pytest.fixture
def fleets() -> dict[str, Summary]:
    """Deployments without games on the server: one that tells wins, and one whose noise hides them."""
    return {"told": of_a_fleet(stats(0.75, 8)), "hidden": of_a_fleet()}


@pytest.fixture
def run(tmp_path: Path, summary: Summary) -> Path:
    return write_run(tmp_path / "run", summary)


@pytest.fixture
def save() -> Callable[[Path, Summary], Path]:
    return write_run
