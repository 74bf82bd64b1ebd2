"""Whole runs through the in-process engine, with the player that needs no model."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedoel.client.runtime import LocalRuntime
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError, FedoelError, ModelError, VersionError
from fedoel.server import app as server
from fedoel.server.learner import Adapter, TacticsLearner
from fedoel.server.phases import Outcome, Phases
from fedoel.server.registry import load_adapter
from fedoel.simulations.floor import add_tactics_floor
from fedoel.simulations.grid import InProcessGrid
from fedoel.simulations.identity import server_identity
from fedoel.simulations.inprocess import run_inprocess

SETTINGS: dict[str, Scalar] = {
    "name": "small",
    "clients": 3,
    "cycles": 2,
    "games.families": "coin-collector level=102 turns=6",
    "games.per-client": 3,
    "games.rehearsal": 4,
    "games.gate": 6,
    "games.held-out": 8,
    "policy.backend": "tactics",
}
RATES = {"win_rate", "low", "high", "episodes", "score", "turns_per_win", "tokens_per_win"}


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    return RunConfig.from_flat({**SETTINGS, "cache": str(cache), "out": str(tmp_path / "run")})


def summary(config: RunConfig) -> dict[str, Any]:
    """The summary without clocks and places."""
    found: dict[str, Any] = json.loads((Path(config.out) / "summary.json").read_text())
    for entry in found["cycles"]:
        entry.pop("seconds")
    for key in ("out", "resume"):
        found["config"].pop(key)
    return found


def test_a_summary_has_everything_and_a_second_run_says_the_same(config: RunConfig, tmp_path: Path) -> None:
    run_inprocess(config)
    add_tactics_floor(config)
    found = summary(config)
    assert set(found["floors"]) == {"random", "heuristic", "walkthrough", "tactics_only"}
    assert [entry["cycle"] for entry in found["cycles"]] == [0, 1, 2]
    for entry in found["cycles"]:
        for stats in (entry["held_out"], entry["teacher"], entry["families"]["coin-collector"]):
            assert set(stats) >= RATES
        assert entry["uplink_bytes"] <= 4096
    assert all(set(floor) >= RATES for floor in found["floors"].values())
    assert found["floors"]["walkthrough"]["win_rate"] == 1.0
    again = replace(config, out=str(tmp_path / "again"))
    run_inprocess(again)
    add_tactics_floor(again)
    assert summary(again) == found


class Interrupted(Exception):
    """Somebody pulled the plug."""


def stop_in(cycle: int, phase: str) -> Callable[[dict[str, Any]], None]:
    def listen(event: dict[str, Any]) -> None:
        if (event["event"], event.get("cycle"), event.get("phase")) == ("phase_started", cycle, phase):
            raise Interrupted

    return listen


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("whole")
    config = RunConfig.from_flat({**SETTINGS, "cache": str(cache), "out": str(out)})
    run_inprocess(config)
    return summary(config)


@pytest.mark.parametrize(
    ("cycle", "phase"),
    [(0, "model"), (0, "games"), (0, "warm-start"), (0, "floors"), (0, "evaluate"), (1, "collect"), (1, "context"),
     (1, "teacher"), (1, "distil"), (1, "gate"), (1, "evaluate"), (2, "collect")],
)  # fmt: skip
def test_a_run_stopped_in_any_phase_goes_on_to_the_same_result(
    config: RunConfig, whole: dict[str, Any], cycle: int, phase: str
) -> None:
    with pytest.raises(Interrupted):
        run_inprocess(config, stop_in(cycle, phase))
    run_inprocess(replace(config, resume=True))
    assert summary(config) == whole


def simulate(config: RunConfig, *words: str) -> subprocess.Popen[str]:
    settings = [f"--set={key}={value}" for key, value in SETTINGS.items() if key not in ("name", "clients", "cycles")]
    call = [sys.executable, "-c", "import sys; from fedoel.simulations.cli import main; sys.exit(main())", "simulate"]
    call += [
        "quick",
        "--clients=3",
        "--cycles=2",
        f"--out={config.out}",
        f"--set=cache={config.cache}",
        *settings,
        *words,
    ]
    return subprocess.Popen(call, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_process_resumes(config: RunConfig, whole: dict[str, Any], how: signal.Signals) -> None:
    process = simulate(config)
    events = Path(config.out) / "events.jsonl"
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and not (events.exists() and '"floors"' in events.read_text()):
        time.sleep(0.05)
    os.kill(process.pid, how)
    _, said = process.communicate(timeout=60)
    if how is signal.SIGINT:
        assert process.returncode == 130
        assert "--resume" in said
    assert simulate(config, "--resume").communicate(timeout=120)
    after, before = summary(config), whole
    assert [e["version"] for e in after["cycles"]] == [e["version"] for e in before["cycles"]]
    assert [e["held_out"] for e in after["cycles"]] == [e["held_out"] for e in before["cycles"]]


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"games.families": "chess turns=4"}, ConfigError, "chess"),
        ({"games.families": "coin-collector colour=4 turns=4"}, ConfigError, "colour"),
        ({"games.families": "coin-collector level=999999 turns=4"}, ConfigError, "level"),
        ({"games.families": ""}, ConfigError, "at least one game"),
        ({"games.partition": "by-mood"}, ConfigError, "partition"),
        ({"clients": 20_000}, ConfigError, "more clients than seeds"),
        ({"games.per-client": 9_000}, ConfigError, "private game"),
        ({"strategy.name": "astrology"}, ConfigError, "astrology"),
        ({"policy.backend": "magic"}, ConfigError, "magic"),
        ({"policy.backend": "torch", "policy.base": "/nowhere/model.gguf"}, ModelError, "no model at"),
        ({"out": "relative"}, ConfigError, "absolute"),
    ],
)
def test_what_cannot_be_run_is_refused_before_any_work(
    config: RunConfig, change: dict[str, Scalar], error: type[FedoelError], says: str
) -> None:
    with pytest.raises(error, match=says):
        run_inprocess(RunConfig.from_flat({**config.to_flat(), **change}))
    assert not Path(config.out).exists()


def with_bad_clients(good: ClientApp, bad: dict[int, str]) -> ClientApp:
    """Let some clients misbehave, each in its way."""
    app = ClientApp()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        kind = bad.get(int(str(context.node_config["partition-id"])), "")
        if kind == "raises":
            raise ValueError("a secret room with a secret coin")
        reply = good(message, context)
        return Message(spoilt(reply.content, kind), reply_to=message) if kind else reply

    return app


def spoilt(records: RecordDict, kind: str) -> RecordDict:
    from flwr.app import Array, ArrayRecord, ConfigRecord

    array = records.array_records["experience"]["vector"].numpy().copy()
    digest = next(iter(records.config_records.values()))
    if kind == "nan":
        array[0] = np.nan
    if kind == "short":
        array = array[:-1]
    name = next(iter(records.config_records))
    changed = ConfigRecord({key: "old" if kind == "old" else value for key, value in digest.items()})
    return RecordDict({"experience": ArrayRecord({"vector": Array(array)}), name: changed})


def run_with(config: RunConfig, bad: dict[int, str]) -> dict[str, Any]:
    from fedoel.client.app import make_app

    runtime = LocalRuntime()
    grid = InProcessGrid(with_bad_clients(make_app(runtime), bad), config.clients, config.to_flat())
    with server_identity():
        server.run(grid, config, runtime)
    return summary(config)


def test_bad_clients_are_counted_and_the_round_goes_on(config: RunConfig) -> None:
    config = replace(config, clients=5, cycles=1)
    entry = run_with(config, {0: "raises", 1: "nan", 2: "old", 3: "short"})["cycles"][1]
    assert entry["accepted"] == 1
    assert sum(entry["refused"].values()) == 4
    assert "secret" not in (Path(config.out) / "events.jsonl").read_text()


def test_without_experience_the_version_stays(config: RunConfig) -> None:
    found = run_with(replace(config, cycles=1), dict.fromkeys(range(3), "nan"))["cycles"]
    assert found[1]["decision"] == "no-experience"
    assert found[1]["version"] == found[0]["version"]
    assert found[1]["held_out"] == found[0]["held_out"]


@pytest.mark.parametrize("control", ["Empty", "Shuffled"])
def test_wrong_experience_gains_nothing(config: RunConfig, control: str) -> None:
    strategy = replace(config.strategy, name=f"fedoel.strategies.controls:{control}")
    run_inprocess(replace(config, strategy=strategy))
    found = summary(config)["cycles"]
    if control == "Empty":
        assert {entry["decision"] for entry in found[1:]} == {"no-gain"}
        assert {entry["version"] for entry in found} == {found[0]["version"]}
    assert found[-1]["held_out"]["win_rate"] <= found[0]["held_out"]["high"]


class Backwards(TacticsLearner):
    """Learns the opposite of what it is taught."""

    def distil(self, adapter: Adapter, context: Any, *_: Any) -> Adapter:
        return {"weights": adapter["weights"] - 3 * context.weights}


def test_a_candidate_that_loses_is_not_promoted(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "make_learner", lambda config, cache: Backwards())
    run_inprocess(replace(config, games=replace(config.games, gate=24, per_client=6), cycles=1))
    entry = summary(config)["cycles"][1]
    assert entry["decision"] == "rejected"
    assert entry["version"] == summary(config)["cycles"][0]["version"]
    assert "merit" in entry["reason"]


def test_versions_can_be_loaded_and_changed_ones_cannot(config: RunConfig) -> None:
    run_inprocess(replace(config, cycles=1))
    last = summary(config)["cycles"][-1]["version"]
    folder = Path(config.out) / "versions" / last
    version, adapter = load_adapter(folder)
    assert version == last
    from safetensors.numpy import save_file

    save_file({"weights": adapter["weights"] + np.float32(0.5)}, str(folder / "adapter_model.safetensors"))
    with pytest.raises(VersionError, match="changed"):
        load_adapter(folder)


def test_a_full_disk_is_said_and_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    phases = Phases(tmp_path, None)  # type: ignore[arg-type]
    phases.keep(0, "floors", Outcome({"kept": 1}))

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(FedoelError, match=r"No space left on device.*--resume"):
        phases.keep(0, "floors", Outcome({"kept": 2}))
    assert phases.load(0, "floors").values == {"kept": 1}


def test_logs_and_summaries_quote_no_game(config: RunConfig) -> None:
    run_inprocess(replace(config, cycles=1))
    said = "".join((Path(config.out) / name).read_text() for name in ("events.jsonl", "summary.json"))
    for words in ("-=", "You ", "floor of", "unblocked", "go east", "go north"):
        assert words not in said
