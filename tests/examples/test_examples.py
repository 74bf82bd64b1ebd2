"""Every example passes what is asked of its kind, is as short as it says, and its command runs and learns.

Lines are those that are not blank, outside of the docstring of the file.
"""

from __future__ import annotations

import ast
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.set_option import parse_setting
from fedoel.simulations.conformance.checks import PASSED
from fedoel.simulations.conformance.plugin import check_plugin
from fedoel.simulations.inprocess import run_inprocess

ROOT = Path(__file__).resolve().parents[2]
MOST_LINES = {"agreement": 25, "errand": 40, "bag_of_words": 60, "verbs": 17, "lift": 35, "babyai": 40}
PLUGINS = {
    "agreement": ("strategy", "Agreement"), "errand": ("game", "ERRAND"), "bag_of_words": ("policy", "BagOfWords"),
    "verbs": ("codec", "Verbs"), "lift": ("game", "LIFT"), "babyai": ("game", "BABYAI"),
}  # fmt: skip
SETTINGS: dict[str, Scalar] = {
    "clients": 12, "cycles": 2, "policy.backend": "tactics", "games.per-client": 6, "games.rehearsal": 32,
    "games.families": "examples.errand:ERRAND rooms=4 turns=8", "games.gate": 24, "games.held-out": 60,
}  # fmt: skip


@pytest.fixture(autouse=True)
def repository(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), *sys.path]))


def needs(name: str) -> None:
    """Skip a test of an example whose package is missing; the development install has it."""
    if name == "babyai":
        pytest.importorskip("minigrid", reason="minigrid is not installed: pip install minigrid")


def source(name: str) -> tuple[str, ast.Module]:
    text = (ROOT / "examples" / f"{name}.py").read_text(encoding="utf-8")
    return text, ast.parse(text)


def count_lines(name: str) -> int:
    text, tree = source(name)
    first = tree.body[0]
    docstring = range(first.lineno, (first.end_lineno or 0) + 1)
    return sum(bool(line.strip()) and number not in docstring for number, line in enumerate(text.splitlines(), start=1))


def test_every_example_is_tested() -> None:
    assert {path.stem for path in (ROOT / "examples").glob("*.py")} - {"__init__"} == set(MOST_LINES) == set(PLUGINS)


@pytest.mark.parametrize("name", [name for name, most in MOST_LINES.items() if most])
def test_examples_are_as_short_as_they_say(name: str) -> None:
    most = MOST_LINES[name]
    said = ast.get_docstring(source(name)[1]) or ""
    assert most is not None and f"in {most} lines" in said
    assert count_lines(name) <= most


@pytest.mark.parametrize("name", PLUGINS)
def test_examples_do_what_plugins_must_do(name: str) -> None:
    needs(name)
    kind, plugin = PLUGINS[name]
    found, outcomes = check_plugin(f"examples.{name}:{plugin}")
    assert found == kind
    assert [str(outcome) for outcome in outcomes if outcome.result != PASSED] == []


@pytest.mark.parametrize("name", PLUGINS)
def test_the_command_of_an_example_runs_and_what_it_plays_gets_better(name: str, tmp_path: Path, cache: Path) -> None:
    needs(name)
    [command] = re.findall(r"^ *(fedoel simulate .*)$", source(name)[0], flags=re.MULTILINE)
    given = dict(parse_setting(word) for word in shlex.split(command)[2:] if word != "--set")
    config = {**SETTINGS, **given, "out": str(tmp_path / "run"), "cache": str(cache)}
    run_inprocess(RunConfig.from_flat(config))
    cycles: list[dict[str, Any]] = json.loads((tmp_path / "run" / "summary.json").read_text())["cycles"]
    first, last = (cycles[place]["held_out"]["win_rate"] for place in (0, -1))
    assert last >= first + 0.2


def test_the_command_line_finds_plugins_in_the_working_folder(tmp_path: Path) -> None:
    code = "import sys; from fedoel.cli.main import main; sys.exit(main())"
    path = os.pathsep.join(entry for entry in sys.path if Path(entry or ".").resolve() != ROOT)
    done = subprocess.run(
        [sys.executable, "-c", code, "check-plugin", "examples.agreement:Agreement"],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": path}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert "is a strategy" in done.stdout and "9 passed, 0 failed, 0 skipped" in done.stdout
