"""Both engines run the same apps, and come to the same numbers to the last bit."""

from __future__ import annotations

import json
import os
import tomllib
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.protocol.config import (
    DistilConfig,
    GamesConfig,
    PolicyConfig,
    RunConfig,
    ServerConfig,
    StrategyConfig,
    WarmStartConfig,
)
from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.records.events import Event, RunFinished, TrafficCounted
from fedoel.server.events import follow
from fedoel.server.operate.run_app import write_app
from fedoel.simulations.inprocess import run_inprocess, whole_fleet
from fedoel.simulations.ray_engine import run_ray

CONFIG = RunConfig(
    clients=3,
    cycles=2,
    games=GamesConfig(families="coin-collector level=2 turns=5", per_client=2, rehearsal=2, gate=2, held_out=2),
    policy=PolicyConfig(backend="tactics"),
    strategy=StrategyConfig(exchanges=2),
    server=ServerConfig("games"),
)


def arrays(out: Path) -> dict[str, bytes]:
    """Every array that a run left on disk, by name; a phase's "values" are a record, with its clock."""
    found = {str(file.relative_to(out)): np.load(file).tobytes() for file in out.rglob("*.npy")}
    for file in out.rglob("*.npz"):
        with np.load(file) as archive:
            found |= {
                f"{file.relative_to(out)}/{name}": archive[name].tobytes() for name in archive.files if name != "values"
            }
    return found


def traffic(events: list[Event]) -> list[TrafficCounted]:
    """What each cohort sent, without clocks."""
    return [replace(event, t=0.0) for event in events if isinstance(event, TrafficCounted)]


@pytest.mark.slow
def test_ray_and_one_process_agree_to_the_bit(tmp_path: Path, cache: Path) -> None:
    """With secure sums: vectors are rounded in the same way, and masks cancel."""
    here: list[Event] = []
    there: list[Event] = []
    run = replace(CONFIG, clients=6, cycles=1, strategy=StrategyConfig(name="secure-mean", exchanges=2))
    config = replace(run, cache=str(cache))
    run_inprocess(replace(config, out=str(tmp_path / "here")), here.append)
    run_ray(replace(config, out=str(tmp_path / "there")), there.append)
    assert arrays(tmp_path / "here")
    assert arrays(tmp_path / "here") == arrays(tmp_path / "there")
    assert len(traffic(here)) == run.cycles
    assert traffic(here) == traffic(there)
    assert all(cohort.accepted == run.clients for cohort in traffic(here))


@pytest.mark.slow
def test_with_a_language_model_both_play_the_same_games_equally_well(
    tmp_path: Path, cache: Path, tiny_base: Path
) -> None:
    """Batches have other shapes, so the last bits of a probability may differ, and nothing more."""
    config = replace(
        CONFIG,
        clients=2,
        cycles=1,
        cache=str(cache),
        games=replace(CONFIG.games, families="orchard turns=6", per_client=4, rehearsal=4),
        policy=PolicyConfig(base=str(tiny_base), device="cpu", threads=1, lora_layers=2, lora_rank=4),
        strategy=StrategyConfig(),
        warm_start=WarmStartConfig(steps=12, batch=4, learning_rate=2e-3),
        distil=DistilConfig(steps=12, batch=4),
    )
    vectors, summaries = [], []
    for name, engine in (("here", run_inprocess), ("there", run_ray)):
        engine(replace(config, out=str(tmp_path / name)))
        with np.load(tmp_path / name / "checkpoints" / "cycle-001" / "collect.npz") as kept:
            vectors.append(kept["vector"])
        summaries.append(json.loads((tmp_path / name / "summary.json").read_text()))
    assert summaries[0]["engine"] != summaries[1]["engine"]
    here, there = vectors
    assert np.array_equal(here[2 * DIMENSION :], there[2 * DIMENSION :])  # episodes, wins, turns, tokens, returns
    assert np.abs(here[:DIMENSION]).max() > 0.1
    assert np.allclose(here, there, atol=0.01)
    for ours, theirs in zip(summaries[0]["cycles"], summaries[1]["cycles"], strict=True):
        assert ours["held_out"]["low"] <= theirs["held_out"]["win_rate"] <= ours["held_out"]["high"]


@pytest.mark.slow
def test_a_run_that_fails_under_ray_says_so(tmp_path: Path, cache: Path) -> None:
    config = replace(CONFIG, cache=str(cache), out=str(tmp_path / "out"))
    broken = replace(config, strategy=replace(config.strategy, name="nowhere:Strategy"))
    with pytest.raises(FedoelError, match="finished:failed"):
        run_ray(broken)


def test_ray_needs_a_place_for_results() -> None:
    with pytest.raises(ConfigError, match="'out'"):
        run_ray(CONFIG)


def test_a_run_waits_for_its_whole_fleet() -> None:
    assert whole_fleet(CONFIG).strategy.min_available_nodes == CONFIG.clients


def test_the_app_carries_the_run_and_no_dependencies(tmp_path: Path) -> None:
    config = replace(CONFIG, out='/tmp/a "quoted" \\ path', codec=replace(CONFIG.codec, discount=1e-05))
    write_app(tmp_path / "app", config)
    app = tomllib.loads((tmp_path / "app" / "pyproject.toml").read_text())
    assert RunConfig.from_nested(app["tool"]["flwr"]["app"]["config"]) == config
    assert app["project"]["dependencies"] == []
    assert os.listdir(tmp_path / "app") == ["pyproject.toml"]


def test_events_are_followed_from_now_on_in_whole_lines(tmp_path: Path) -> None:
    file = tmp_path / "events.jsonl"
    line = '{"event": "run_finished", "t": 1.0, "summary": "SUMMARY"}\n'
    file.write_text(line.replace("SUMMARY", "old"))
    events = follow(file)
    assert next(events) is None
    with file.open("a") as log:
        log.write(line.replace("SUMMARY", "first") + line[:20])
        log.flush()
        assert [next(events), next(events)] == [RunFinished(t=1.0, summary="first"), None]
        log.write(line[20:].replace("SUMMARY", "second"))
    assert [next(events), next(events), next(events)] == [RunFinished(t=1.0, summary="second"), None, None]
