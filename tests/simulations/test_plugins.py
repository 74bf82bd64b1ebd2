"""Installed plug-ins are listed and found by name, and packages that `fedoel new` writes work as they are."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from fedoel.cli.main import main
from fedoel.cli.plugins import list_plugins
from fedoel.codecs.encoder import load_encoder
from fedoel.games.families import family_of
from fedoel.protocol.errors import ConfigError
from fedoel.simulations.skeletons.package import write_skeleton
from fedoel.strategies.mean import Mean
from fedoel.strategies.registry import BUILT_IN, load_strategy

ENTRY_POINTS = """\
[fedoel.strategies]
plain = fedoel.strategies.mean:Mean
broken = nowhere_at_all:Mine
mean = fedoel.strategies.robust:Median

[fedoel.codecs]
counted = fedoel.codecs.tactics.encoder:TacticsEncoder

[fedoel.games]
lake = fedoel_lakes:LAKE
"""
LAKES = "from fedoel.games.families import FAMILIES\nLAKE = FAMILIES['frozen-lake']\n"


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A package with plug-ins, as pip leaves it."""
    info = tmp_path / "fedoel_more-3.2.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: fedoel-more\nVersion: 3.2\n")
    (info / "entry_points.txt").write_text(ENTRY_POINTS)
    (tmp_path / "fedoel_lakes.py").write_text(LAKES)
    monkeypatch.syspath_prepend(tmp_path)
    yield
    family_of.cache_clear()


def test_installed_plugins_are_found_by_name_and_what_is_built_in_stays(installed: None) -> None:
    assert load_strategy("plain") is Mean is load_strategy("mean")
    assert load_encoder("counted").name == "tactics"
    assert "holes" in family_of("lake").rules
    with pytest.raises(ConfigError, match="'broken' is installed but cannot be imported"):
        load_strategy("broken")


def test_plugins_lists_where_everything_comes_from(installed: None, capsys: pytest.CaptureFixture[str]) -> None:
    rows = {(kind, name): (origin, options) for kind, name, origin, options in list_plugins()}
    assert rows["strategy", "plain"] == ("fedoel-more 3.2", "")
    assert rows["strategy", "trimmed-mean"] == ("built in", "beta=0.2")
    assert rows["strategy", "mean"][0] == "built in"
    assert rows["strategy", "broken"][1].startswith("cannot be used: ")
    assert rows["codec", "prefix"] == ("built in", "needs a prompt")
    assert rows["game", "lake"] == ("fedoel-more 3.2", "size=3 holes=0 split=all")
    assert rows["game", "coin-collector"][1] == "level=(an integer from 1 to 300)"
    assert rows["policy", "tactics"] == ("built in", "")
    assert main(["plugins"]) == 0
    assert "trimmed-mean" in capsys.readouterr().out


@pytest.mark.parametrize("kind", ["strategy", "codec", "game"])
def test_a_new_plugin_passes_its_own_tests_and_checks(kind: str, tmp_path: Path) -> None:
    folder = write_skeleton(kind, f"My-{kind}", tmp_path)
    assert {path.name for path in folder.iterdir()} == {f"my_{kind}.py", f"test_my_{kind}.py", "pyproject.toml"}
    plain = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONDONTWRITEBYTECODE": "1"}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"],
        cwd=folder, env=plain, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert " passed" in done.stdout and "skipped" not in done.stdout


def test_a_new_plugin_is_registered_under_the_entry_points_of_its_kind(tmp_path: Path) -> None:
    for kind, group, target in (
        ("strategy", "fedoel.strategies", "one:One"), ("codec", "fedoel.codecs", "two_three:TwoThree"),
        ("game", "fedoel.games", "four_five:FOUR_FIVE"),
    ):  # fmt: skip
        name = target.partition(":")[0].replace("_", "-")
        written = (write_skeleton(kind, name, tmp_path) / "pyproject.toml").read_text()
        assert f'[project.entry-points."{group}"]\n{name} = "{target}"' in written


@pytest.mark.parametrize(
    "name", ["", "2fast", "a b", "../x", "class", "json", "numpy", "true", "fedoel", "a-", "aggregate"]
)
def test_names_that_are_none_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError):
        write_skeleton("strategy", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_is_there_is_not_overwritten(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["new", "strategy", "Mine-1"]) == 0
    assert "fedoel check-plugin mine_1:Mine1" in capsys.readouterr().out
    assert main(["new", "strategy", "Mine-1"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert main(["new", "strategy", "mine"]) == 0  # though a folder of that name is then a package to Python
    assert main(["new", "strategy", "mine"]) == 2
    assert "is there already" in capsys.readouterr().err


def test_the_reference_names_every_strategy_with_its_options() -> None:
    text = (Path(__file__).parents[2] / "docs" / "reference.md").read_text(encoding="utf-8")
    section = text.partition("\n## Strategies\n")[2].partition("\n## ")[0]
    rows = [line.split("|") for line in section.splitlines() if line.startswith("| `")]
    said = {name: set(re.findall(r"`([\w-]+)`", row[2])) for row in rows for name in re.findall(r"`([\w-]+)`", row[1])}
    shared = said.pop("krum") | said.pop("multi-krum")
    expected = {name: {option.name for option in kind.options().values()} for name, kind in BUILT_IN.items()}
    assert shared == expected.pop("krum") | expected.pop("multi-krum")
    assert said == expected


def test_built_in_strategies_are_entry_points_too() -> None:
    pyproject = tomllib.loads((Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8"))
    written = pyproject["project"]["entry-points"]["fedoel.strategies"]
    assert written == {name: f"{kind.__module__}:{kind.__name__}" for name, kind in BUILT_IN.items()}
