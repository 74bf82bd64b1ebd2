"""A context that leads too far is halved and tried again, on public games."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.protocol.config import RunConfig
from fedoel.server.gate import Differences, Verdict
from fedoel.server.registry import load_adapter
from fedoel.simulations.inprocess import run_inprocess

from .gates import HoldingGate


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> RunConfig:
    return RunConfig.from_flat({
        "clients": 3, "cycles": 1, "games.families": "frozen-lake turns=6", "games.per-client": 4,
        "games.rehearsal": 6, "games.gate": 6, "games.held-out": 8, "policy.backend": "tactics",
        "server.public": "games",
        "out": str(tmp_path / "run"), "cache": str(cache),
    })  # fmt: skip


def run_with(config: RunConfig, helpful: int) -> tuple[dict[str, Any], list[int]]:
    """Run a cycle in which the context helps at the `helpful`-th try; also return how many each try was the last of."""
    tries: list[int] = []

    class CountingGate(HoldingGate):
        def context_helps(self, differences: Differences, choices: Sequence[str] = ()) -> Verdict:
            tries.append(len(choices))
            return Verdict(len(tries) == helpful, ", ".join(choices))

    run_inprocess(config, make_gate=CountingGate)
    entry: dict[str, Any] = json.loads((Path(config.out) / "summary.json").read_text())["cycles"][1]
    return entry, tries


def weights(config: RunConfig, version: str) -> Any:
    return load_adapter(Path(config.out) / "versions" / version)[1]["weights"]


def test_what_helps_when_halved_is_what_is_learned(config: RunConfig) -> None:
    found, tries = run_with(config, 3)
    assert found["decision"] == "promoted" and tries == [0, 2, 3]
    assert found["reason"].startswith("1/4 of it, 1/2 of it, all of it")
    with np.load(Path(config.out) / "checkpoints" / "cycle-001" / "context.npz") as kept:
        full, far = kept["weights"], json.loads(kept["values"].tobytes())["kl"]
    assert np.abs(full).max() > 0
    np.testing.assert_array_equal(weights(config, found["version"]), full / 4)
    assert 0 < found["kl"] < far / 4  # KL falls about as the square of the step
    resumed = replace(config, resume=True)
    assert run_with(resumed, 3) == (found, [0, 2, 3])  # read back, not made again


def test_what_never_helps_is_not_learned(config: RunConfig) -> None:
    found, tries = run_with(replace(config, context=replace(config.context, halvings=1)), 9)
    assert found["decision"] == "no-gain" and tries == [0, 2]
    assert not weights(config, found["version"]).any()


def test_nothing_cannot_be_halved(config: RunConfig) -> None:
    empty = replace(config.strategy, name="fedoel.strategies.controls:Empty")
    found, tries = run_with(replace(config, strategy=empty), 9)
    assert found["decision"] == "no-gain" and tries == [0]
