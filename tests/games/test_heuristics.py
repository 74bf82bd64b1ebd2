"""Heuristic players win their games, and return admissible commands only."""

from __future__ import annotations

from pathlib import Path
from typing import cast

import numpy as np
import pytest

from fedoel.games.families import unrenamed
from fedoel.games.heuristics import HEURISTICS, Player, explore, uniform
from fedoel.games.scripted import play_scripted
from fedoel.protocol.errors import GameError
from fedoel.protocol.play import GameSpec
from fedoel.protocol.situation import Memory

from .conftest import SPECS

SEEDS = range(3, 6)
LEAST = {"assistant": 5}  # shared words are a guess, and not a rule


@pytest.fixture(params=[spec for spec in SPECS if spec.family in HEURISTICS], ids=str)
def spec(request: pytest.FixtureRequest) -> GameSpec:
    """One game of every family that has rules; `express` has none."""
    return cast(GameSpec, request.param)


def wins(spec: GameSpec, player: Player, cache: Path, tries: int) -> int:
    """Count wins without `renamed`: heuristics know the original words only, and baselines are played so, too."""
    rng, spec = np.random.default_rng(0), unrenamed(spec)
    return sum(play_scripted(spec, seed, player, rng, cache).won for seed in SEEDS for _ in range(tries))


def test_a_heuristic_beats_chance(spec: GameSpec, cache: Path) -> None:
    assert wins(spec, HEURISTICS[spec.family], cache, tries=4) >= LEAST.get(spec.family, 10)
    assert wins(spec, uniform, cache, tries=4) <= LEAST.get(spec.family, 10) - 4


def test_heuristics_are_deterministic_given_the_generator(spec: GameSpec, cache: Path) -> None:
    player, spec = HEURISTICS[spec.family], unrenamed(spec)
    first, second = (play_scripted(spec, 3, player, np.random.default_rng(5), cache) for _ in range(2))
    assert [turn.command for turn in first.turns] == [turn.command for turn in second.turns]


def test_exploring_tries_new_exits_before_going_back() -> None:
    memory, rng = Memory("", 9), np.random.default_rng(0)
    memory.see("-= A =-\nA.", ("go east",), 0)
    memory.do("go east")
    here = ("go east", "go west", "look")
    assert explore(memory.see("-= B =-\nB.", here, 1), rng) == "go east"
    memory.do("go east")
    memory.see("-= C =-\nC.", ("go west",), 2)
    memory.do("go west")
    assert explore(memory.see("-= B =-\nB.", here, 3), rng) == "go west"


def test_exploring_tries_to_open_a_container_once() -> None:
    memory, rng = Memory("", 9), np.random.default_rng(0)
    here = ("go east", "open box")
    assert explore(memory.see("-= A =-\nA.", here, 0), rng) == "open box"
    memory.do("open box")
    assert explore(memory.see("It does not open.", here, 1), rng) == "go east"


def test_an_inadmissible_command_of_a_player_is_an_error(spec: GameSpec, cache: Path) -> None:
    with pytest.raises(GameError, match="not one of"):
        play_scripted(spec, 3, lambda situation, rng: "win", np.random.default_rng(0), cache)
