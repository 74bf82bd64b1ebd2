"""What a cycle reads and writes does not grow with the cycles before it, and nothing of them is lost."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest

from fedoel.codecs.encoder import Parameters
from fedoel.protocol.config import RunConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector
from fedoel.protocol.messages import PlayRequest
from fedoel.server.app import prepare
from fedoel.server.cycle.collect import aggregates_about, experience_about, summed
from fedoel.server.cycle.run import Run
from fedoel.server.cycle.server import CycleServer
from fedoel.server.events import events_of
from fedoel.server.gate import Differences, Gate, Verdict
from fedoel.server.summary import FIRST_CYCLES, NAME, read_summary
from fedoel.strategies.server_side import AskFleet, Traffic


class Refusing:
    """A gate that finds that no context helps."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def __getattr__(self, name: str) -> Any:
        return getattr(self._gate, name)

    def with_fleet(self, ask: AskFleet, parameters: Parameters) -> Refusing:
        return self

    def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
        return Verdict(False, "it does not help")


def refusing(server: CycleServer) -> Run:
    return replace(server.run, gate=cast(Gate, Refusing(server.run.gate)))


def nobody(request: PlayRequest, part: int) -> None:
    """A fleet in which nobody answers."""


def consolidate(server: CycleServer, cycle: int, aggregate: Aggregate | None) -> None:
    server.request(cycle, 1)
    server.collect(cycle, 1, aggregate, Traffic(1.0, 1.0, 2, {}))
    server.consolidate(cycle, nobody)


def aggregate_of(server: CycleServer, cycle: int) -> Aggregate:
    spec = server.run.spec(server.state.version.name)
    parts = np.random.default_rng(cycle).normal(size=(2, spec.dimension)) ** 3
    return Aggregate(ExperienceVector.from_parts(spec, {"gradient": parts[0], "fisher": parts[1] ** 2}), 2, 0.5)


def bytes_read_and_written() -> np.ndarray:
    """What this process has read and written so far."""
    counters = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return np.array([int(counters["rchar"]), int(counters["wchar"])])


def test_a_cycle_reads_and_writes_as_much_as_one_long_before(server: CycleServer) -> None:
    """All of these cycles are about one version; some bring nothing."""
    server.run = refusing(server)
    spent = []
    for cycle in range(1, 64):
        before = bytes_read_and_written()
        consolidate(server, cycle, aggregate_of(server, cycle) if cycle % 3 else None)
        spent.append(bytes_read_and_written() - before)
    early, late = spent[FIRST_CYCLES : FIRST_CYCLES + 12], spent[-12:]
    early = [each for each in early if each[1] < 2 * np.median(early, axis=0)[1]]  # without that of a doubling
    assert np.all(np.mean(late, axis=0) < 1.1 * np.mean(early, axis=0))


def test_the_running_sum_is_the_correctly_rounded_sum(server: CycleServer) -> None:
    server.run = refusing(server)
    for cycle in range(1, 12):
        server.request(cycle, 1)
        server.collect(cycle, 1, aggregate_of(server, cycle), Traffic(1.0, 1.0, 2, {}))
    together = summed(aggregates_about(server.run, server.state.version, 11, 1))
    running = experience_about(server.run, server.state.version, 11, 1)
    assert running is not None and (running.cohort, running.noise) == (together.cohort, together.noise) == (22, 5.5)
    assert np.array_equal(running.vector.to_array(), together.vector.to_array())


def test_exchanges_that_an_earlier_release_kept_are_added_up(
    server: CycleServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as before:
        before.setattr("fedoel.server.cycle.streak.Streak.beside", lambda streak, outcome: outcome)
        for cycle in (1, 2):
            server.request(cycle, 1)
            server.collect(cycle, 1, aggregate_of(server, cycle), Traffic(1.0, 1.0, 2, {}))
    server.request(3, 1)
    server.collect(3, 1, aggregate_of(server, 3), Traffic(1.0, 1.0, 2, {}))
    running = experience_about(server.run, server.state.version, 3, 1)
    together = summed(aggregates_about(server.run, server.state.version, 3, 1))
    assert running is not None and np.array_equal(running.vector.to_array(), together.vector.to_array())


def test_the_last_aggregate_is_found_behind_any_number_of_cycles_without_one(server: CycleServer) -> None:
    for cycle in range(1, 40):
        server.request(cycle, 1)
        server.collect(cycle, 1, aggregate_of(server, cycle) if cycle == 1 else None, Traffic(1.0, 1.0, 2, {}))
    before = bytes_read_and_written()
    found = server.collected_before(40, 1)
    assert found is not None and found.cohort == 2
    assert (bytes_read_and_written() - before)[0] < 50_000


def test_a_summary_that_is_behind_is_completed_from_the_log(
    server: CycleServer, config: RunConfig, cache: Path
) -> None:
    server.run = replace(refusing(server), config=replace(server.run.config, cycles=20))
    server._summary = replace(server._summary, config=server.run.config.to_flat())
    records = [server.state.record]
    for cycle in range(1, 19):
        consolidate(server, cycle, None)
        records.append(server.state.record)
    assert len(json.loads((server.run.folder / NAME).read_bytes())["cycles"]) == 17  # the last doubling was to 16
    assert read_summary(server.run.folder).cycles == tuple(records)
    server.run.log.__exit__()

    again = prepare(replace(config, cycles=20), cache)[1]
    with again.run.log:
        assert again.run.log.known_cycle == 18
        again.start()
        for cycle in range(1, 19):
            again.consolidate(cycle, nobody)
        # Seconds of phases that an earlier process has finished are known.
        assert again.state.record == records[-1] and "collect" in records[-1].seconds
        assert read_summary(server.run.folder).cycles == tuple(records)
        for cycle in (19, 20):
            again.request(cycle, 1)
            again.collect(cycle, 1, None, Traffic(1.0, 1.0, 2, {}))
            again.consolidate(cycle, nobody)
    told = json.loads((server.run.folder / NAME).read_bytes())
    assert [entry["cycle"] for entry in told["cycles"]] == list(range(21))
    assert sum(1 for _ in events_of(server.run.folder / "events.jsonl")) > 100
