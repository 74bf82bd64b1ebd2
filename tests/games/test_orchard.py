"""The two orchards look the same, and a fruit that wins in one loses in the other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.tactics.coordinates import cells, tactic_name
from fedoel.games.families import build_game
from fedoel.games.heuristics import HEURISTICS
from fedoel.games.scripted import play_scripted
from fedoel.protocol.play import GameSpec, Observation
from fedoel.protocol.situation import Memory

NAMES = ("orchard", "mirror-orchard")


def first(name: str, seed: int, cache: Path) -> Observation:
    return build_game(GameSpec.parse(f"{name} turns=6"), cache).reset(seed)


def test_only_the_name_of_the_land_differs(cache: Path) -> None:
    for seed in range(20):
        one, other = (first(name, seed, cache) for name in NAMES)
        assert (one.text, one.admissible) == (other.text, other.admissible)
        assert one.goal.replace("Northfield", "Southfield") == other.goal != one.goal


def test_what_wins_in_one_loses_in_the_other(cache: Path) -> None:
    ends = set()
    for seed in range(20):
        games = [build_game(GameSpec.parse(f"{name} turns=6"), cache) for name in NAMES]
        eat = games[0].reset(seed).admissible[-1]
        games[1].reset(seed)
        one, other = (game.step(eat) for game in games)
        assert one.done and other.done and (one.won, one.lost) == (other.lost, other.won)
        ends.add(one.won)
    assert ends == {True, False}


def test_tactics_do_not_distinguish_the_orchards(cache: Path) -> None:
    tactics = []
    for name in NAMES:
        observation = first(name, 3, cache)
        situation = Memory(observation.goal, 6).see(observation.text, observation.admissible, 0)
        tactics.append([tactic_name(int(cell)) for cell in cells(situation)])
    assert tactics[0] == tactics[1] and any(tactic.startswith("eat") for tactic in tactics[0])


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("trees", [2, 7])
def test_the_heuristic_player_always_wins(name: str, trees: int, cache: Path) -> None:
    spec, rng = GameSpec.parse(f"{name} trees={trees} turns=8"), np.random.default_rng(0)
    assert all(play_scripted(spec, seed, HEURISTICS[name], rng, cache).won for seed in range(40))
