"""A run's folder as `fedoel dash` meets it: with its configuration, so that it has versions, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.protocol.records.summary import Summary
from fedoel.server.run_folder import STORED
from fedoel.simulations.page.watched import Watched

Save = Callable[[Path, Summary], Path]


@pytest.fixture
def folder(run: Path, summary: Summary) -> Path:
    (run / STORED).write_text(json.dumps(dict(summary.config)))
    return run


@pytest.fixture
def watched(folder: Path) -> Watched:
    return Watched(folder)


@pytest.fixture
def begun(tmp_path: Path, save: Save, summary: Summary) -> Path:
    """The same run when only its first two cycles had ended; `finish` in tests makes it the whole one."""
    return save(tmp_path / "begun", replace(summary, cycles=summary.cycles[:2]))
