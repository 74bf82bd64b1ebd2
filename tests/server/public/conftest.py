"""A pack of prompts, and a run whose server has nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

from fedoel.games.make_prompts import pack_for
from fedoel.protocol.config import RunConfig

FAMILIES = "frozen-lake size=4 turns=6; tidy things=1 final=0 turns=8"


@pytest.fixture
def pack(cache: Path) -> Path:
    return pack_for(FAMILIES, 60, cache)


@pytest.fixture
def config(tmp_path: Path, pack: Path) -> RunConfig:
    return RunConfig.from_flat({
        "games.families": FAMILIES, "games.per-client": 2, "policy.backend": "tactics", "clients": 4, "cycles": 1,
        "server.public": "prompts", "server.prompts": str(pack), "server.prompts-per-cycle": 20,
        "trial.contexts": True, "trial.share": 1.0, "out": str(tmp_path / "run"),
    })  # fmt: skip
