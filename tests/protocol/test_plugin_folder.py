"""Plug-ins are found in the working folder, whose files replace no module of anybody else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from fedoel.games.prepare import _Worker
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GameSpec
from fedoel.protocol.plugins import PLUGINS, import_object, search_folder

CHILD = """\
import random, json
from fedoel.protocol.plugins import import_object
print(random.Random and import_object("my_own_plugin:Thing", "strategy.name"))
"""
PARENT = """\
import os, subprocess, sys
from fedoel.cli.main import import_from_working_folder
import_from_working_folder()
subprocess.run([sys.executable, "-P", "-c", sys.argv[1]], check=True)
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a plug-in, and with files that have the names of modules of the standard library."""
    for name in ("random", "json", "signal"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a file of the working folder was imported')\n")
    (tmp_path / "my_own_plugin.py").write_text("Thing = 'found'\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv(PLUGINS, raising=False)
    monkeypatch.setattr(sys, "path", [*sys.path])
    return tmp_path


def run(folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    command = [sys.executable, "-P", "-c", PARENT, CHILD]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


def test_the_working_folder_is_searched_last_also_in_children(folder: Path) -> None:
    done = run(folder)
    assert (done.returncode, done.stdout.strip()) == (0, "found"), done.stderr


def test_a_process_that_prepares_games_does_not_import_from_the_working_folder(folder: Path) -> None:
    worker = _Worker(folder / "cache")
    try:
        worker.prepare(GameSpec.parse("frozen-lake size=3 turns=3"), 1)
    finally:
        worker.stop()


def test_a_folder_that_everybody_may_write_to_is_not_searched_and_that_is_said(folder: Path) -> None:
    folder.chmod(0o777)
    done = run(folder)
    assert done.returncode == 1 and "the working folder is not searched, because everybody may write" in done.stderr


def test_a_folder_that_was_removed_is_not_searched(folder: Path) -> None:
    search_folder(str(folder / "nowhere"))
    assert PLUGINS not in os.environ
    with pytest.raises(ConfigError, match=r"No module named 'no_such_plugin'$"):
        import_object("no_such_plugin:Thing", "strategy.name")
