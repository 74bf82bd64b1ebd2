"""A small fleet without a language model, on games in pure Python; each client plays one of two families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.server.cycle.phases import load_phase
from fedoel.server.run_folder import prepare_folder
from fedoel.simulations.baselines.baseline import load_baseline

SETTINGS: dict[str, Scalar] = {
    "clients": 4, "cycles": 2, "policy.backend": "tactics", "games.partition": "by-family", "games.per-client": 3,
    "games.families": "frozen-lake size=3 turns=6; sokoban turns=5", "games.rehearsal": 6, "games.gate": 6,
    "games.held-out": 8, "strategy.name": "mean", "server.public": "games",
}  # fmt: skip
Runner = Callable[..., dict[str, Any]]


@pytest.fixture
def run(tmp_path: Path, cache: Path) -> Runner:
    """Make a run in one of the ways there are, and return its summary."""

    def make(method: str = "federated", folder: str = "", **settings: Scalar) -> dict[str, Any]:
        out = tmp_path / (folder or method.partition(" ")[0])
        given = {**SETTINGS, "cache": str(cache), "out": str(out), "resume": out.exists(), **settings}
        baseline = load_baseline(method)
        config = baseline.check(RunConfig.from_flat(given))
        prepare_folder(config)
        baseline.run(config)
        return dict(json.loads((out / "summary.json").read_text()))

    return make


@pytest.fixture
def vector(tmp_path: Path) -> Callable[[str], NDArray[np.float32]]:
    """Read what a run collected in its first cycle."""

    def read(folder: str) -> NDArray[np.float32]:
        return load_phase(tmp_path / folder, 1, "collect").arrays["vector"]

    return read
