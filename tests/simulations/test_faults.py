"""Runs in which something is bad: clients, what was learned, or the disk."""

from __future__ import annotations

import errno
import json
import math
import os
import resource
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from numpy.typing import NDArray
from safetensors import SafetensorError

from fedoel.client.app import make_app
from fedoel.client.runtime import SimulatedRuntime
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, ServerConfig
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.host.cache import cache_folder
from fedoel.protocol.messages import PlayRequest, request_from_records
from fedoel.protocol.versions import Manifest
from fedoel.server import app as server
from fedoel.server.cycle.phases import Outcome, Phases
from fedoel.server.events import EventLog
from fedoel.server.learner import Adapter, DistillationTask, Distilled
from fedoel.server.registry import load_adapter, save_version
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies.cohort import split

GAMES = GamesConfig("frozen-lake turns=6", per_client=3, rehearsal=4, gate=6, held_out=8)
SECRET = "a secret room with a secret coin"


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    policy = PolicyConfig(backend="tactics")
    out = str(tmp_path / "run")
    return RunConfig(clients=3, cache=str(cache), out=out, games=GAMES, policy=policy, server=ServerConfig("games"))


def cycles(config: RunConfig) -> list[dict[str, Any]]:
    """The cycles of a finished run, without clocks."""
    found: list[dict[str, Any]] = json.loads((Path(config.out) / "summary.json").read_text())["cycles"]
    for entry in found:
        entry.pop("seconds")
    return found


@dataclass
class Fleet:
    """Clients of which some misbehave in the first cycle, each in its way; what the others sent is written down."""

    bad: Mapping[int, str]
    sent: list[NDArray[Any]] = field(default_factory=list)

    def app(self) -> ClientApp:
        app, good = ClientApp(), make_app(SimulatedRuntime())

        @app.train("experience")
        def experience(message: Message, context: Context) -> Message:
            request = request_from_records(message.content)
            kind = self.bad.get(int(str(context.node_config["partition-id"])), "") if request.cycle == 1 else ""
            if kind == "raises":
                raise ValueError(SECRET)
            reply = good(message, context)
            if kind:
                return Message(spoilt(reply.content, request, kind), reply_to=message)
            if request.cycle == 1:
                self.sent.append(reply.content.array_records["experience"][request.spec.digest].numpy())
            return reply

        return app

    def run(self, config: RunConfig) -> list[dict[str, Any]]:
        grid = InProcessGrid(self.app(), config.clients, config.to_flat())
        with server_identity():
            server.run(grid, config, cache_folder(config))
        return cycles(config)


def spoilt(records: RecordDict, request: PlayRequest, kind: str) -> RecordDict:
    array = records.array_records["experience"][request.spec.digest].numpy().copy()
    spec = request.spec
    if kind == "nan":
        array[0] = np.nan
    if kind == "short":
        array = array[:-1]
    if kind == "old":
        spec = replace(spec, policy_version="the one before")
    return RecordDict({"experience": ArrayRecord({spec.digest: Array(array)})})


def test_bad_clients_are_counted_by_reason_and_the_others_make_the_aggregate(config: RunConfig) -> None:
    fleet = Fleet({0: "raises", 1: "nan", 2: "old", 3: "short"})
    found = fleet.run(replace(config, clients=6))
    assert found[1]["accepted"] == len(fleet.sent) == 2
    assert found[1]["refused"] == {"bad vector": 3, "error code 2": 1}
    assert (found[2]["accepted"], found[2]["refused"]) == (6, {})
    with np.load(Path(config.out) / "checkpoints" / "cycle-001" / "collect.npz") as kept:
        summed = [math.fsum(column) for column in np.stack(fleet.sent).T.tolist()]
        assert np.array_equal(kept["vector"], np.array(summed, np.float32))
    assert "secret" not in (Path(config.out) / "events.jsonl").read_text()


def test_without_experience_the_version_stays_and_the_run_goes_on(config: RunConfig) -> None:
    found = Fleet(dict.fromkeys(range(3), "nan")).run(config)
    assert found[1]["decision"] == "no-experience"
    assert found[1]["refused"] == {"bad vector": 3}
    for key in ("version", "held_out", "families", "adapter_bytes"):
        assert found[1][key] == found[0][key]
    assert found[2]["accepted"] == 3


def test_an_exchange_that_gives_nothing_leaves_the_cycle_to_the_others(config: RunConfig) -> None:
    first = split([FIRST_NODE_ID + client for client in range(4)], 2, config.seed, 1)[0]
    fleet = Fleet({node - FIRST_NODE_ID: "nan" for node in first})
    found = fleet.run(replace(config, clients=4, strategy=replace(config.strategy, exchanges=2)))
    assert (found[1]["accepted"], found[1]["refused"]) == (2, {"bad vector": 2})
    assert found[1]["decision"] != "no-experience"
    assert found[1]["lessons"]


@pytest.mark.parametrize("control", ["Empty", "Shuffled"])
def test_wrong_experience_gains_nothing(config: RunConfig, control: str) -> None:
    strategy = replace(config.strategy, name=f"fedoel.strategies.controls:{control}")
    run_inprocess(replace(config, strategy=strategy))
    found = cycles(config)
    if control == "Empty":
        assert [entry["decision"] for entry in found[1:]] == ["no-gain", "no-gain"]
        assert "merit +0.000" in found[1]["reason"]
        assert {entry["version"] for entry in found} == {found[0]["version"]}
    assert found[-1]["held_out"]["win_rate"] <= found[0]["held_out"]["high"]


class Backwards(TacticsLearner):
    """Learns the opposite of what it is taught."""

    def distil(self, adapter: Adapter, task: DistillationTask, advance: Any) -> Distilled:
        return Distilled({"weights": adapter["weights"] - 3 * task.context.weights}, {})


def test_a_candidate_that_loses_is_rejected_and_the_reason_kept(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "make_learner", lambda config, cache: Backwards())
    games = replace(GAMES, families="orchard turns=3", gate=24, per_client=6)
    run_inprocess(replace(config, games=games, cycles=1))
    first, entry = cycles(config)
    assert entry["decision"] == "rejected"
    assert (entry["version"], entry["held_out"]) == (first["version"], first["held_out"])
    assert "but merit -" in entry["reason"]
    assert entry["gate"]["candidate"]["win_rate"] <= entry["gate"]["current"]["win_rate"]
    assert entry["reason"] in (Path(config.out) / "events.jsonl").read_text()
    assert [path.name for path in (Path(config.out) / "versions").iterdir()] == [first["version"]]


@contextmanager
def full_above(size: int) -> Iterator[None]:
    """A disk on which no file can grow above a size: it takes a part of what is written, and then refuses."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.fixture(scope="module")
def whole(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    out = tmp_path_factory.mktemp("whole")
    config = RunConfig(
        clients=3, cache=str(cache), out=str(out), games=GAMES, policy=PolicyConfig(backend="tactics"),
        server=ServerConfig("games"),
    )  # fmt: skip
    run_inprocess(config)
    return cycles(config)


PHASES = (
    "warm-start", "floors", "evaluate", "collect", "context", "teacher", "distil", "gate", "behaviour", "replay",
)  # fmt: skip


@pytest.mark.parametrize("name", [*(f"{phase}.npz.part" for phase in PHASES), "manifest.json", "summary.json.part"])
def test_a_run_on_a_full_disk_says_what_to_do_and_loses_nothing(
    config: RunConfig, whole: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    opened = Path.open

    def full(path: Path, mode: str = "r", *rest: Any, **more: Any) -> Any:
        if path.name == name and "w" in mode:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return opened(path, mode, *rest, **more)

    with monkeypatch.context() as patch, pytest.raises(FedoelError, match=r"No space left.*go on with --resume"):
        patch.setattr(Path, "open", full)
        run_inprocess(config)
    done = {path: path.read_bytes() for path in Path(config.out).rglob("*.npz")}
    assert not list(Path(config.out).rglob("making-*"))
    run_inprocess(replace(config, resume=True))
    assert all(path.read_bytes() == content for path, content in done.items())
    assert cycles(config) == whole


def test_a_full_temporary_folder_is_said(config: RunConfig, tmp_path: Path) -> None:
    """TextWorld copies a compiled game there whenever it starts it."""
    games = GamesConfig("coin-collector level=102 turns=6", per_client=1, rehearsal=2, gate=2, held_out=2)
    config = replace(config, cycles=1, games=games)
    whole = replace(config, out=str(tmp_path / "whole"))
    run_inprocess(whole)
    with full_above(50_000), pytest.raises(FedoelError, match=r"make room in .*, or set TMPDIR"):
        run_inprocess(config)
    run_inprocess(replace(config, resume=True))
    assert cycles(config) == cycles(whole)


def test_a_phase_on_a_full_disk_keeps_what_was_there(tmp_path: Path) -> None:
    with EventLog(tmp_path / "events.jsonl") as log:
        phases = Phases(tmp_path, log)
        phases.keep(0, "floors", Outcome({"kept": 1}))
        with full_above(100), pytest.raises(FedoelError, match=r"floors\.npz cannot be written"):
            phases.keep(0, "floors", Outcome({"kept": 2}))
    assert phases.load(0, "floors").values == {"kept": 1}


def test_a_version_on_a_full_disk_is_there_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    learner = TacticsLearner()
    adapter = learner.warm_start([], lambda n: None)
    version = learner.policy(adapter).version
    manifest = Manifest(version, "", learner.base, 0, "tactics", (), 0, None)

    def full(*_: Any) -> None:
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    with monkeypatch.context() as patch, pytest.raises(FedoelError, match=f"{version} cannot be kept.*No space left"):
        patch.setattr("safetensors.numpy.save_file", full)
        save_version(tmp_path, manifest, adapter, learner)
    assert list(tmp_path.iterdir()) == []
    assert load_adapter(save_version(tmp_path, manifest, adapter, learner))[0] == version
