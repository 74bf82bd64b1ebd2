"""The engine `ray` on a cluster: two nodes on this machine."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, ServerConfig, StrategyConfig
from fedoel.protocol.host.processes import environment_of_children, free_ports, start_process, stop
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.ray_engine import federation_of, run_ray

RAY = Path(sys.executable).with_name("ray")
LOOPBACK = ["--node-ip-address", "127.0.0.1"]
NODE = [*LOOPBACK, "--block", "--object-store-memory", "80000000", "--num-cpus", "1", "--disable-usage-stats"]
START_SECONDS = 180.0  # a busy machine takes more than a minute, and `ray start` itself gives up after half of one


@pytest.fixture
def cluster(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address of a cluster of two nodes, which end with the test; `ray stop` would end everybody's."""
    port = free_ports(1)[0]
    address = f"127.0.0.1:{port}"
    nodes = list[subprocess.Popen[bytes]]()
    try:
        for words in (["--head", "--port", str(port), "--include-dashboard", "false"], ["--address", address]):
            nodes.append(started_node(words, tmp_path / f"node-{len(nodes)}.log"))
        monkeypatch.setenv("RAY_ADDRESS", address)
        yield address
    finally:
        for node in reversed(nodes):
            stop(node)


def started_node(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**environment_of_children(), "PATH": f"{RAY.parent}{os.pathsep}{os.environ['PATH']}"}
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        node = start_process([str(RAY), "start", *words, *NODE], environment, log.parent, log)
        while node.poll() is None and time.monotonic() < deadline:
            if "Ray runtime started" in log.read_text():
                return node
            time.sleep(0.2)
        stop(node)
    raise AssertionError(log.read_text())


def test_a_cluster_says_itself_how_many_processors_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    assert f" init-args-num-cpus={os.cpu_count()}" in federation_of(7)
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    assert federation_of(7) == "num-supernodes=7 client-resources-num-cpus=1 client-resources-num-gpus=0"


@pytest.mark.slow
@pytest.mark.skipif(not RAY.exists(), reason="ray is not installed")
def test_a_cluster_of_two_nodes_gives_the_aggregates_of_one_process(tmp_path: Path, cache: Path, cluster: str) -> None:
    config = RunConfig(
        clients=4, cycles=1, cache=str(cache), policy=PolicyConfig(backend="tactics"), strategy=StrategyConfig(),
        games=GamesConfig("frozen-lake size=3 turns=4", per_client=2, rehearsal=2, gate=2, held_out=2),
        server=ServerConfig("games"),
    )  # fmt: skip
    aggregates = []
    for name, engine in (("one", run_inprocess), ("cluster", run_ray)):
        engine(replace(config, out=str(tmp_path / name)))
        with np.load(tmp_path / name / "checkpoints" / "cycle-001" / "collect.npz") as kept:
            aggregates.append(kept["vector"].tobytes())
    assert aggregates[0] == aggregates[1]
