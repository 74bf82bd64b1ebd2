"""Frozen Lake and Sokoban: boards, rules, and that the rules are not told."""

from __future__ import annotations

from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.games.families import build_game
from fedoel.games.grid import frozen_lake, sokoban
from fedoel.games.grid.board import MOVES, board_from_text, board_to_text, split_of
from fedoel.games.grid.frozen_lake import Lake, draw_lake
from fedoel.games.grid.sokoban import Warehouse, draw_warehouse
from fedoel.games.heuristics import HEURISTICS, uniform
from fedoel.games.scripted import play_scripted
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.protocol.errors import ConfigError, GameError
from fedoel.protocol.play import GameSpec, Setting

LAKE = GameSpec.parse("frozen-lake turns=6")
SOKOBAN = GameSpec.parse("sokoban turns=5")
WAREHOUSE: dict[str, Setting] = {"size": 6, "walls": 1, "moves": 5, "split": "all"}


def test_there_are_19_small_lakes_and_every_split_has_some() -> None:
    squares = [(row, column) for row in range(3) for column in range(3)][1:-1]
    lakes = [Lake(3, frozenset(holes)) for holes in combinations(squares, 2)]
    boards = [lake.to_text((0, 0)) for lake in lakes if lake.solution() is not None]
    assert len(boards) == 19
    splits = [split_of(board) for board in boards]
    assert all(splits.count(name) >= 2 for name in ("train", "valid", "test"))


@pytest.mark.parametrize("spec", [LAKE, SOKOBAN, GameSpec.parse("frozen-lake size=5 turns=12")], ids=str)
def test_no_board_is_in_two_splits(spec: GameSpec, tmp_path: Path) -> None:
    boards = {
        split: {build_game(for_split(spec, split), tmp_path).reset(game_seed(split, index)).text for index in range(40)}
        for split in (Split.REHEARSAL, Split.GATE, Split.HELD_OUT)
    }
    for one, other in combinations(boards.values(), 2):
        assert not one & other


@given(st.integers(0, 2**31), st.sampled_from([(3, 2), (4, 4), (5, 6)]))
@settings(max_examples=50)
def test_every_lake_can_be_crossed_and_read(seed: int, shape: tuple[int, int]) -> None:
    lake = draw_lake(*shape, "all", seed)
    path = lake.solution()
    assert path and frozen_lake.next_move(lake.to_text((0, 0))) == path[0]
    assert len(board_from_text(lake.to_text((0, 0)))) == shape[1] + 2


@given(st.integers(0, 2**31))
@settings(deadline=None, max_examples=50)
def test_every_warehouse_can_be_solved_in_time_and_read(seed: int) -> None:
    warehouse, state = draw_warehouse(WAREHOUSE, seed)
    solution = warehouse.solution(state)
    assert solution and 1 <= len(solution) <= 5
    assert sokoban.next_move(warehouse.to_text(state)) == solution[0]


def test_a_hole_ends_the_game_and_the_edge_stops_a_move(tmp_path: Path) -> None:
    lake = draw_lake(3, 2, "all", 1)
    game = build_game(LAKE, tmp_path)
    first = game.reset(1)
    after_edge = game.step("go up")
    assert (after_edge.text, after_edge.done, after_edge.turn) == ("Nothing happens.", False, 1)
    assert after_edge.admissible == first.admissible == tuple(MOVES)
    assert len(lake.holes) == 2
    for hole in lake.holes:
        # Straight to one hole, around the other.
        other_hole, square, last = Lake(3, lake.holes - {hole}), (0, 0), game.reset(1)
        while square != hole and not last.done:
            command = min(MOVES, key=lambda move: _distance(other_hole, square, move, hole))
            square, last = other_hole.step(square, command), game.step(command)
        assert last.lost and last.done and not last.won and last.score == 0


def _distance(lake: Lake, square: tuple[int, int], command: str, goal: tuple[int, int]) -> int:
    after = lake.step(square, command)
    return 99 if after in lake.holes else abs(after[0] - goal[0]) + abs(after[1] - goal[1])


def test_a_wall_stops_the_box_and_a_push_moves_it() -> None:
    walls = frozenset({(1, 4)})
    warehouse = Warehouse(6, walls, (3, 3))
    assert warehouse.step(((1, 1), (1, 2)), "go right") == ((1, 2), (1, 3))
    assert warehouse.step(((1, 2), (1, 3)), "go right") == ((1, 2), (1, 3))
    assert warehouse.step(((1, 2), (1, 3)), "go down") == ((2, 2), (1, 3))
    assert warehouse.won(((3, 2), (3, 3)))


@pytest.mark.parametrize("spec", [LAKE, SOKOBAN], ids=str)
def test_the_rules_are_not_told_in_words(spec: GameSpec, tmp_path: Path) -> None:
    for seed in range(5):
        trajectory = play_scripted(spec, seed, uniform, np.random.default_rng(seed), tmp_path)
        for turn in trajectory.turns:
            text = " ".join([turn.situation.goal, turn.situation.place_text, turn.situation.reply]).lower()
            for word in ("hole", "lake", "ice", "box", "push", "wall", "exit", "sokoban", "fall"):
                assert word not in text


@pytest.mark.parametrize("spec", [LAKE, SOKOBAN], ids=str)
def test_chance_wins_some_and_a_solver_wins_all(spec: GameSpec, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    random = sum(play_scripted(spec, seed, uniform, rng, tmp_path).won for seed in range(100))
    solved = sum(play_scripted(spec, seed, HEURISTICS[spec.family], rng, tmp_path).won for seed in range(100))
    assert random < 40
    assert solved == 100


def test_lakes_that_cannot_be_crossed_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="holes=9 leave no path across 3x3"):
        build_game(GameSpec.parse("frozen-lake size=3 holes=9 turns=6"), tmp_path)
    with pytest.raises(GameError, match="use fewer holes"):
        draw_lake(3, 4, "none of them", 1)


def test_a_player_on_the_target_hides_it() -> None:
    assert board_from_text(board_to_text(3, {(0, 0): "P", (2, 2): "X"}, (0, 0))) == {(0, 0): "P", (2, 2): "X"}
    warehouse = Warehouse(6, frozenset({(0, 0), (5, 5)}), (2, 2))
    assert sokoban.next_move(warehouse.to_text(((2, 2), (3, 3)))) in MOVES
