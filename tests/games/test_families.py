"""Settings are checked before any work is done, and importing the package imports no heavy library."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from fedoel.games.families import FAMILIES, build_game, family_of, red_lines_of, settings_of
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GameSpec, specs_from_text

GUARDED = replace(FAMILIES["frozen-lake"], red_lines=("Go  up", "open *"))
WRONG: object = ["go up"]
MISTAKEN = replace(GUARDED, red_lines=WRONG)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("chess turns=3", "unknown game family 'chess'; known are .*coin-collector"),
        ("coin-collector turns=3", "say level="),
        ("coin-collector level=0 turns=3", "level must be an integer from 1 to 300, not 0"),
        ("coin-collector level=high turns=3", "not 'high'"),
        ("coin-collector level=300 turns=3", "300 rooms"),
        ("coin-collector size=3 turns=3", r"unknown setting 'size'; coin-collector knows \['level', 'renamed'\]"),
        ("treasure-hunter level=31 turns=3", "from 1 to 30"),
        ("cooking go=2 turns=3", r"one of \[1, 6, 9, 12\]"),
        ("cooking recipe=1 take=2 turns=3", "take=2 is more than"),
        ("cooking cut=2 turns=3", "cut must be 1 or 0"),
        ("cooking split=dev turns=3", "split must be one of"),
        ("sokoban renamed=2 turns=3", "renamed must be 1 or 0"),
    ],
)
def test_invalid_settings_are_refused_with_the_allowed_values(text: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        build_game(GameSpec.parse(text), tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_turn_limit_is_positive(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at least one turn"):
        build_game(GameSpec("coin-collector", (("level", 1),), 0), tmp_path)


def test_a_level_is_not_a_boolean(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="not True"):
        build_game(GameSpec("coin-collector", (("level", True),), 3), tmp_path)


def test_settings_are_canonical() -> None:
    from_defaults = settings_of(GameSpec("cooking", (("open", True),), 5))
    spelled_out = settings_of(GameSpec.parse("cooking open=1 recipe=1 take=0 go=1 cook=0 split=all turns=9"))
    assert from_defaults == spelled_out
    assert list(from_defaults) == sorted(from_defaults)


def test_red_lines_of_games_are_in_the_words_that_players_read() -> None:
    lake = f"{__name__}:GUARDED turns=3"
    assert red_lines_of(specs_from_text(f"sokoban turns=3; {lake}")) == ("go up", "open *")
    assert red_lines_of(specs_from_text(f"{__name__}:GUARDED renamed=1 turns=3")) == ("walk upward", "unseal *")
    assert red_lines_of(specs_from_text("sokoban turns=3")) == ()


def test_red_lines_that_are_no_tuple_are_refused_with_the_name_of_the_family() -> None:
    with pytest.raises(ConfigError, match=r"red_lines of the game family '.*:MISTAKEN' must be at most 200 texts"):
        family_of(f"{__name__}:MISTAKEN")


def test_importing_the_families_is_light() -> None:
    code = "import sys, fedoel.games.families; print({'textworld', 'torch'} & set(sys.modules))"
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    out = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
