"""Whole runs with every strategy, on games in pure Python and without a language model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import ConfigError
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies.registry import BUILT_IN

SETTINGS: dict[str, Scalar] = {
    "clients": 8, "cycles": 2, "policy.backend": "tactics", "games.partition": "by-family", "games.per-client": 2,
    "games.families": "frozen-lake size=3 turns=6; sokoban turns=5", "games.rehearsal": 6, "games.gate": 6,
    "games.held-out": 6, "server.public": "games",
}  # fmt: skip
OWN: dict[str, dict[str, Scalar]] = {
    "central-mean": {"privacy.mechanism": "central", "privacy.epsilon": 8.0},
    "local-mean": {"privacy.mechanism": "local", "privacy.epsilon": 8.0},
    "trusted-secure": {"games.per-client": 6, "games.rehearsal": 24},  # enough for groups to point somewhere
}


def run(out: Path, cache: Path, **settings: Scalar) -> list[dict[str, Any]]:
    config = RunConfig.from_flat({**SETTINGS, "cache": str(cache), "out": str(out), **settings})
    run_inprocess(config)
    cycles: list[dict[str, Any]] = json.loads((out / "summary.json").read_text())["cycles"]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in cycles]


@pytest.mark.parametrize("name", BUILT_IN)
def test_every_strategy_goes_through_a_run(name: str, tmp_path: Path, cache: Path) -> None:
    entries = run(tmp_path, cache, **{"strategy.name": name, **OWN.get(name, {})})
    assert [entry["cycle"] for entry in entries] == [0, 1, 2]
    assert all(entry["accepted"] >= 4 for entry in entries[1:])


@pytest.mark.parametrize("name", ["momentum", "adam", "clustered"])
def test_a_strategy_with_a_memory_goes_on_where_it_stopped(name: str, tmp_path: Path, cache: Path) -> None:
    whole = run(tmp_path / "whole", cache, **{"strategy.name": name})
    once: dict[str, Scalar] = {"strategy.name": name, "cycles": 1}
    again: dict[str, Scalar] = {"strategy.name": name, "resume": True}
    run(tmp_path / "part", cache, **once)
    assert run(tmp_path / "part", cache, **again) == whole


def test_a_clustered_run_keeps_its_parts_and_a_context_of_each(tmp_path: Path, cache: Path) -> None:
    options: dict[str, Scalar] = {"strategy.name": "clustered", "strategy.options": "min-cluster-size=1"}
    entries = run(tmp_path, cache, **options)
    with np.load(tmp_path / "checkpoints" / "cycle-001" / "collect.npz") as kept:
        parts = json.loads(kept["values"].tobytes())["parts"]
        assert sum(parts) == 8 and len(parts) == 2
        assert np.allclose(kept["vector"], kept["part-0"] + kept["part-1"], atol=1e-4)
    assert (tmp_path / "checkpoints" / "cycle-001" / "context-part-2.npz").exists()
    assert {lesson["cluster"] for lesson in entries[1]["lessons"]} == {1, 2}


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"strategy.name": "clustered", "strategy.exchanges": 2}, r"strategy\.exchanges 1"),
        ({"strategy.name": "grouped-secure", "clients": 6}, "do not make two groups"),
        ({"strategy.name": "trusted-secure", "clients": 6}, "do not make two groups"),
        ({"strategy.name": "trimmed-mean", "strategy.options": "beta=2"}, "beta"),
        ({"strategy.name": "grouped-secure", "privacy.mechanism": "distributed", "privacy.epsilon": 1.0}, "together"),
    ],
)
def test_what_a_strategy_cannot_do_is_refused_before_any_work(
    settings: dict[str, Scalar], said: str, tmp_path: Path, cache: Path
) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path / "run", cache, **settings)
    assert not (tmp_path / "run").exists()
