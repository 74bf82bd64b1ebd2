"""A summary says what its numbers depend on beside configuration and seed."""

from __future__ import annotations

import json
import subprocess
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import PolicyConfig, RunConfig
from fedoel.server import machine
from fedoel.server.app import prepare
from fedoel.server.fleet import make_fleet
from fedoel.server.machine import _commit, _instructions, _processor, this_machine
from fedoel.server.summary import NAME, read_summary


@pytest.fixture
def config(tmp_path: Path) -> RunConfig:
    config = RunConfig.from_flat({
        "games.families": "frozen-lake size=3 turns=3", "games.per-client": 1, "games.rehearsal": 2, "games.gate": 2,
        "games.held-out": 2, "policy.backend": "tactics", "out": str(tmp_path / "run"), "clients": 2,
        "server.public": "games",
    })  # fmt: skip
    make_fleet(Path(config.out) / "keys", config.clients)
    return config


def start(config: RunConfig, cache: Path) -> dict[str, Any]:
    server = prepare(config, cache)[1]
    with server.run.log:
        server.start()
    return dict(json.loads((Path(config.out) / NAME).read_bytes()))


def test_a_summary_names_the_machine_and_a_resumed_run_the_next_one(
    config: RunConfig, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (first,) = start(config, cache)["machines"]
    assert first["processor"] and first["threads"] == 1 and {"python", "numpy"} <= first["versions"].keys()
    assert start(config, cache)["machines"] == [first], "the same machine is named once"
    other = replace(this_machine(config.policy), processor="another", threads=7)
    monkeypatch.setattr(machine, "this_machine", lambda policy: other)
    assert [each["processor"] for each in start(config, cache)["machines"]] == [first["processor"], "another"]


def test_a_summary_of_before_names_no_machine(config: RunConfig, cache: Path) -> None:
    told = start(config, cache)
    del told["machines"]
    (Path(config.out) / NAME).write_text(json.dumps(told))
    assert read_summary(Path(config.out)).machines is None
    (Path(config.out) / NAME).write_text("{")
    assert len(start(config, cache)["machines"]) == 1


def test_what_torch_has_chosen_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    said = this_machine(PolicyConfig(precision="bf16", device="cpu"))
    assert (said.instructions, said.threads, said.precision) == ("AVX2", 3, "bf16")


def test_what_linux_says_of_a_processor_is_read(tmp_path: Path) -> None:
    information = tmp_path / "cpuinfo"
    information.write_text("processor : 0\nmodel name\t: A chip\nflags : fpu avx avx2\n")
    assert (_processor(information), _instructions(information)) == ("A chip", "AVX2")
    information.write_text("processor : 0\nFeatures : fp asimd\n")
    assert _instructions(information) == "NEON"
    assert _instructions(tmp_path / "none") == "" and _processor(tmp_path / "none")


def test_the_commit_is_that_of_this_source_only(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    assert _commit(tmp_path) == ""
