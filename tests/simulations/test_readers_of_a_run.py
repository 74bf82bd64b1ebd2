"""Whoever reads a run between any two kinds of its durable steps sees whole records, and nothing to complain about."""

from __future__ import annotations

import io
import os
import sqlite3
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import main
from fedoel.protocol.config import RunConfig
from fedoel.server.events import LOG, read_events
from fedoel.server.run_folder import STORED, own_folder
from fedoel.server.run_location import locate
from fedoel.server.summary import NAME, read_summary
from fedoel.server.verify import verify
from fedoel.simulations.inprocess import run_inprocess

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.durable_steps import STEPS, Steps


class Watched(Steps):
    """Reads the run behind every kind of step, when it comes for the first time."""

    def __init__(self, root: Path) -> None:
        super().__init__(root.resolve())
        self.looks = dict[str, int]()  # cycles that are known behind each

    def step(self, name: str, path: Path, *rest: Any, **named: Any) -> Any:
        """Make a step, and read."""
        result = super().step(name, path, *rest, **named)
        what = self.names[-1] if self.names else ""
        if what not in self.looks and (self.root / STORED).exists():
            self.looks[what] = 0  # before anything is read
            self.looks[what] = cycles_in(self.root)
        return result


def cycles_in(run: Path) -> int:
    """Read a run in every way, and return how many cycles its summary has."""
    if (run / LOG).exists():
        read_events(run / LOG)
    found = verify(locate(run)) if (run / NAME).exists() else None
    assert not (found and found.problems)
    said, errors = io.StringIO(), io.StringIO()
    with redirect_stdout(said), redirect_stderr(errors):
        code = main(["versions", str(run)])
    assert code == 0 or (code == 2 and errors.getvalue().count("\n") == 1), errors.getvalue()
    return len(read_summary(run).cycles) if (run / NAME).exists() else 0


def test_a_run_is_read_behind_every_step(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = RunConfig.from_flat({
        "clients": 5, "cycles": 2, "seed": 9000, "games.families": "frozen-lake size=3 turns=4", "games.per-client": 2,
        "games.held-out": 4, "policy.backend": "tactics", "strategy.name": "secure-mean",
        "strategy.min-available-nodes": 5, "server.pack": 16, "server.prompts-per-cycle": 16, "trial.share": 1.0,
        "context.max-kl": 0.5, "cache": str(cache), "out": str(tmp_path / "run"),
    })  # fmt: skip
    for module, name in [*((os, step) for step in STEPS), (sqlite3, "connect")]:
        monkeypatch.setattr(module, name, getattr(module, name))  # put back at the end
    watched = Watched(tmp_path / "run")
    watched.watch()
    with own_folder(config):
        run_inprocess(config)
    seen = list(watched.looks.values())
    assert len(seen) > 60 and seen == sorted(seen) and {1, 2} <= {*seen} and cycles_in(tmp_path / "run") == 3
