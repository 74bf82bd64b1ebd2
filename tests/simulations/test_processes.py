"""A run gives the same results with any number of processes, and its workers end with it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.records.events import PhaseFinished
from fedoel.simulations import divided_grid
from fedoel.simulations.held_out import measure
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.workers import Workers, divided

MAY_DIFFER = ("seconds", "written", "machines", "out", "cache", "resume", "server.prompts")
SECURE = {"strategy.name": "secure-mean", "strategy.exchanges": 2}


def config_of(out: Path, cache: Path, **more: Any) -> RunConfig:
    return RunConfig.from_flat({
        "clients": 9, "cycles": 1, "games.families": "tidy things=1 final=1 turns=4", "games.per-client": 2,
        "games.rehearsal": 4, "games.gate": 4, "games.held-out": 20, "policy.backend": "tactics",
        "server.public": "games", "cache": str(cache), "out": str(out), **more,
    })  # fmt: skip


def results(out: Path) -> tuple[Any, dict[str, bytes]]:
    """Everything that a run says, and every array that it left, without clocks and paths."""

    def without_clocks(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: without_clocks(item) for key, item in value.items() if key not in MAY_DIFFER}
        return [without_clocks(item) for item in value] if isinstance(value, list) else value

    arrays = dict[str, bytes]()
    for file in sorted(out.rglob("*.npz")):
        with np.load(file) as archive:
            arrays |= {f"{file.relative_to(out)}/{n}": archive[n].tobytes() for n in archive.files if n != "values"}
    return without_clocks(json.loads((out / "summary.json").read_text())), arrays


def phases(out: Path) -> set[str]:
    return {name for cycle in json.loads((out / "summary.json").read_text())["cycles"] for name in cycle["seconds"]}


@pytest.fixture(autouse=True)
def small_shares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(divided_grid, "ALONE_CLIENTS", 2)


def test_two_processes_give_the_results_of_one_to_the_bit(tmp_path: Path, cache: Path) -> None:
    for processes in (1, 2):
        run_inprocess(config_of(tmp_path / str(processes), cache, **SECURE), processes=processes)
    one, two = (results(tmp_path / name) for name in ("1", "2"))
    assert one == two
    assert one[1]


PROMPTS = {
    "server.public": "prompts", "server.pack": 96, "server.prompts-per-cycle": 40, "trial.contexts": False
}  # fmt: skip
WRITTEN = {
    **PROMPTS, "codec.name": "embedding", "policy.decoding": "free", "policy.response-tokens": 4,
    "games.families": "tidy things=1 open=1 turns=1",
}  # fmt: skip


@pytest.mark.parametrize("more", [PROMPTS, {**PROMPTS, "codec.name": "embedding"}, {"codec.name": "prefix"}, WRITTEN])
def test_a_language_model_gives_the_same_results_too(tmp_path: Path, tiny_base: Path, more: dict[str, Any]) -> None:
    settings = {
        "policy.backend": "torch", "policy.base": str(tiny_base), "policy.device": "cpu", "policy.lora-layers": 2,
        "policy.lora-rank": 4, "policy.batch-tokens": 1024, "warm-start.steps": 2, "warm-start.batch": 4,
        "distil.steps": 2, "distil.batch": 4, "clients": 4, "games.per-client": 2, "games.held-out": 8,
        "warm-start.anchor": 1.0, "distil.anchor": 1.0, **more,
    }  # fmt: skip
    for processes in (1, 2):  # each with a cache of its own, so that each trains its warm start
        out = tmp_path / str(processes)
        run_inprocess(config_of(out, tmp_path / f"cache-{processes}", **settings), processes=processes)
    one, two = (results(tmp_path / name) for name in ("1", "2"))
    assert one == two
    summary = one[0]
    # Nothing that an untrained model writes has a reward, so that there is nothing to distil.
    assert more is WRITTEN or "distil" in phases(tmp_path / "2")
    version = tmp_path / "2" / "versions" / summary["cycles"][-1]["version"]
    measured = measure(config_of(tmp_path / "2", tmp_path / "cache-2", **settings), version)
    assert measured["tidy"].win_rate == summary["cycles"][-1]["held_out"]["win_rate"]


def test_a_run_that_two_processes_began_goes_on_in_one(tmp_path: Path, cache: Path) -> None:
    whole, stopped = (config_of(tmp_path / name, cache, cycles=2) for name in ("whole", "stopped"))
    run_inprocess(whole, processes=1)

    def stop(event: object) -> None:
        if isinstance(event, PhaseFinished) and (event.cycle, event.phase) == (1, "collect"):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_inprocess(stopped, stop, processes=2)
    run_inprocess(replace(stopped, resume=True), processes=1)
    assert results(tmp_path / "whole") == results(tmp_path / "stopped")


def double(number: int) -> int:
    return 2 * number


def pid(number: int) -> int:
    time.sleep(0.2)
    return os.getpid()


def fail(number: int) -> None:
    raise FedoelError("no")


def die(number: int) -> int:
    if os.getppid() == number:  # in the worker
        os._exit(1)
    time.sleep(0.2)
    return 0


def test_shares_come_back_in_order_from_all_processes() -> None:
    told = list[int]()
    with Workers(3) as workers:
        assert workers.map(double, range(50), told.append) == [2 * number for number in range(50)]
        pids = set(workers.map(pid, range(12)))
        assert len(pids) == 3 and os.getpid() in pids
    assert sorted(told) == [2 * number for number in range(50)]
    assert not any(Path(f"/proc/{worker}").exists() for worker in pids - {os.getpid()})


def no_such_item(share: int) -> int:
    return [0, 1, 2][share]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_index_error_of_the_last_share_is_not_taken_for_the_end_of_the_work(processes: int) -> None:
    with Workers(processes) as workers, pytest.raises((IndexError, FedoelError), match="list index out of range"):
        workers.map(no_such_item, range(4))


def test_what_fails_in_a_worker_fails_here() -> None:
    with Workers(2) as workers:
        with pytest.raises(FedoelError, match="no"):
            workers.map(fail, range(4))
        with pytest.raises(FedoelError, match=r"ended before its work was done; is there enough memory\?"):
            workers.map(die, [os.getpid()] * 4)
        assert workers.map(double, range(4)) == [0, 2, 4, 6]  # with new workers
    with pytest.raises(ConfigError, match="at least one process, not 0"):
        Workers(0)


PARENT = """\
import sys, time
from fedoel.simulations.workers import Workers
workers = Workers(2)
workers.map(abs, range(2))
print(workers._workers[0]._process.pid, flush=True)
workers.map(time.sleep, [60, 60])
"""


def test_a_worker_ends_with_a_parent_that_was_killed() -> None:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    with subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True, env=environment) as parent:
        assert parent.stdout is not None
        worker = int(parent.stdout.readline())
        time.sleep(0.5)
        parent.send_signal(signal.SIGKILL)
    for _ in range(100):
        if not Path(f"/proc/{worker}").exists():
            return
        time.sleep(0.1)
    raise AssertionError("the worker lives on")


def test_shares_are_even_and_a_multiple_of_four_where_they_can() -> None:
    assert [len(share) for share in divided(range(8), 5)] == [2, 2, 2, 2]
    assert [len(share) for share in divided(range(100), 16)] == [12, 13, 12, 13, 12, 13, 12, 13]
    assert [len(share) for share in divided(range(3), 1)] == [1, 1, 1]
    assert [len(share) for share in divided(range(5), 5)] == [5]
    assert divided([], 5) == []
    assert [n for share in divided(range(37), 4) for n in share] == list(range(37))
