"""A run that does not fit its machine is refused with an estimate, before it has a folder."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.host.machine import free_memory
from fedoel.simulations import needs
from fedoel.simulations.inprocess import check
from fedoel.simulations.needs import check_needs, needs_of


def fleet(tmp_path: Path, **more: Any) -> RunConfig:
    return RunConfig.from_flat({
        "clients": 100_000, "games.families": "frozen-lake size=3 turns=3", "games.per-client": 2,
        "policy.backend": "tactics", "strategy.name": "mean", "out": str(tmp_path / "a" / "run"), **more,
    })  # fmt: skip


def test_clients_that_do_not_fit_the_memory_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda: 900.0)
    with pytest.raises(ConfigError, match=r"100,000 clients take at least 1\.\d GB of memory, and 900\.0 MB are free"):
        check(fleet(tmp_path))
    check(fleet(tmp_path, clients=1_000))
    check(fleet(tmp_path, **{"strategy.fraction-train": 0.01}))  # a cohort of a thousand
    assert not (tmp_path / "a").exists()


def test_cycles_that_do_not_fit_the_disk_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda folder: SimpleNamespace(free=100e6))
    with pytest.raises(ConfigError, match=r"4,000 cycles take at least \d+\.\d MB of disk, and 100\.0 MB are free in"):
        check(fleet(tmp_path, clients=10, cycles=4_000))


def test_a_system_that_says_nothing_refuses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda: None)
    check_needs(fleet(tmp_path), 10**6)
    assert needs_of(fleet(tmp_path), 1000).memory == pytest.approx(1.8e9)


def test_a_limit_of_a_container_counts(tmp_path: Path) -> None:
    memory = tmp_path / "meminfo"
    memory.write_text("MemTotal: 9 kB\nMemAvailable:    2000000 kB\n")
    assert free_memory(memory, tmp_path) == pytest.approx(2048)
    (tmp_path / "memory.max").write_text("max\n")
    (tmp_path / "memory.current").write_text("100000000\n")
    assert free_memory(memory, tmp_path) == pytest.approx(2048)
    (tmp_path / "memory.max").write_text("400000000\n")
    assert free_memory(memory, tmp_path) == pytest.approx(300)
    assert free_memory(tmp_path / "none", tmp_path / "none") is None


def with_model(tmp_path: Path, megabytes: int, **more: Any) -> RunConfig:
    file = tmp_path / "model.gguf"
    with file.open("wb") as stream:
        stream.truncate(megabytes * 10**6)  # takes no room
    settings = {"policy.backend": "torch", "policy.device": "cpu", "policy.base": str(file), "clients": 10}
    return fleet(tmp_path, **settings, **more)


def test_every_process_holds_a_model(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(needs, "free_memory", lambda: 2_000.0)
    config = with_model(tmp_path, 500)
    check_needs(config, 1000, 2)
    with pytest.raises(ConfigError, match=r"in 3 processes take at least 2\.\d GB of memory, .* take fewer --proc"):
        check_needs(config, 1000, 3)
    with pytest.raises(ConfigError, match=r"several exchanges, or a smaller model$"):
        check_needs(with_model(tmp_path, 3_000), 1000)


def test_by_default_there_are_as_many_processes_as_processors_and_models_that_fit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(needs, "processors", lambda: 8)
    config = with_model(tmp_path, 100)  # 1.65 GB a process
    for free, processes in ((100_000.0, 8), (5_000.0, 3), (3_000.0, 1), (500.0, 1), (None, 8)):
        monkeypatch.setattr(needs, "free_memory", lambda free=free: free)
        assert needs.processes_of(config) == processes
    assert needs.processes_of(config, 5) == 5
    assert needs.processes_of(fleet(tmp_path)) == 8
    assert needs.processes_of(fleet(tmp_path, clients=100)) == 1  # done before a second process has started
    monkeypatch.setattr(needs, "processors", lambda: 1)
    assert needs.processes_of(config) == 1
