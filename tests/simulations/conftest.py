"""A small run as its summary and its events say it, made by rule and not by playing."""

from __future__ import annotations

import json
from collections.abc import Callable
from math import sqrt
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.server.events import CYCLE_PHASES, FIRST_PHASES, EventLog

FAMILIES = ("coin-collector", "treasure-hunter", "cooking")
DECISIONS = ("warm-start", "promoted", "rejected", "promoted")
LESSONS = [
    {"tactic": "take the thing that the goal names", "weight": 1.42, "support": 318},
    {"tactic": "go where you have not been", "weight": 0.77, "support": 941},
    {"tactic": "repeat a command that did nothing <here> & now", "weight": -1.05, "support": 402},
]


def stats(rate: float, episodes: int = 200) -> dict[str, Any]:
    half = 1.96 * sqrt(rate * (1 - rate) / episodes)
    won = {"turns_per_win": 5.4, "tokens_per_win": 812.0} if rate else {"turns_per_win": None, "tokens_per_win": None}
    low, high = max(rate - half, 0.0), min(rate + half, 1.0)
    return {"win_rate": rate, "low": low, "high": high, "episodes": episodes, "score": rate, **won}


def by_family(rate: float, names: tuple[str, ...]) -> dict[str, Any]:
    shift = {name: 0.08 * (1 - number) for number, name in enumerate(names)}
    return {name: stats(min(max(rate + shift[name], 0.0), 1.0), 67) for name in names}


def floor(rate: float, names: tuple[str, ...]) -> dict[str, Any]:
    return {**stats(rate), "families": by_family(rate, names)}


def entry(cycle: int, rate: float, names: tuple[str, ...]) -> dict[str, Any]:
    phases = CYCLE_PHASES if cycle else FIRST_PHASES
    return {
        "cycle": cycle,
        "version": f"v-{cycle:04x}a1",
        "decision": DECISIONS[cycle],
        "reason": "the first version" if not cycle else "gate wins 43 % -> 51 %",
        "held_out": stats(rate),
        "teacher": stats(min(rate + 0.09, 1.0)),
        "families": by_family(rate, names),
        "gate": {"current": stats(rate, 48), "teacher": stats(rate + 0.05, 48), "candidate": stats(rate + 0.03, 48)},
        "lessons": LESSONS if cycle else [],
        "kl": 0.31 if cycle else 0.0,
        "uplink_bytes": 38_000 if cycle else 0,
        "downlink_bytes": 9_600_000 if cycle else 0,
        "accepted": 19 if cycle else 0,
        "refused": {"another policy version": 1} if cycle else {},
        "adapter_bytes": 480_000,
        "seconds": {phase: 2.5 + number for number, phase in enumerate(phases)},
    }


def make_summary(
    names: tuple[str, ...] = FAMILIES, rates: tuple[float, ...] = (0.21, 0.36, 0.36, 0.52)
) -> dict[str, Any]:
    tactics = [floor(rate, names) for rate in (0.2, 0.3, 0.33, 0.38)[: len(rates)]]
    return {
        "scenario": "standard",
        "seed": 3,
        "engine": "inprocess",
        "private": False,
        "config": RunConfig(name="standard", seed=3, clients=20, cycles=3).to_flat(),
        "floors": {
            "random": floor(0.2, names),
            "heuristic": floor(0.57, names),
            "walkthrough": floor(1.0, names),
            "tactics_only": {**tactics[-1], "cycles": tactics},
        },
        "cycles": [entry(cycle, rate, names) for cycle, rate in enumerate(rates)],
    }


def write_events(path: Path, summary: dict[str, Any]) -> None:
    with EventLog(path) as log:
        start = {key: summary[key] for key in ("scenario", "seed", "engine", "config")}
        log.emit("run_started", **start, clients=20, cycles=3)
        for item in summary["cycles"]:
            cycle = item["cycle"]
            for phase in item["seconds"]:
                with log.phase(cycle, phase, total=3) as advance:
                    advance(3)
            if cycle:
                keys = ("uplink_bytes", "downlink_bytes", "accepted", "refused")
                log.emit("traffic", cycle=cycle, **{key: item[key] for key in keys})
                log.emit("lessons", cycle=cycle, lessons=item["lessons"])
            log.emit("decision", cycle=cycle, **{key: item[key] for key in ("decision", "reason", "version")})
            log.emit("cycle_finished", cycle=cycle, entry=item)
        log.emit("run_finished", summary=path.parent / "summary.json")


def write_run(folder: Path, summary: dict[str, Any] | None = None) -> Path:
    summary = summary or make_summary()
    folder.mkdir(parents=True, exist_ok=True)
    write_events(folder / "events.jsonl", summary)
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def summary() -> dict[str, Any]:
    return make_summary()


@pytest.fixture
def one_family() -> dict[str, Any]:
    return make_summary(FAMILIES[:1], (0.2, 0.5))


@pytest.fixture
def run(tmp_path: Path, summary: dict[str, Any]) -> Path:
    return write_run(tmp_path / "run", summary)


@pytest.fixture
def save() -> Callable[[Path, dict[str, Any]], Path]:
    return write_run
