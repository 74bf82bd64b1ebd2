"""What every family must do, shown on one game of each."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest

from fedoel.games import Game, build_game
from fedoel.games.generate import borrowed_textworld
from fedoel.games.heuristics import uniform
from fedoel.games.scripted import play_scripted, play_walkthrough
from fedoel.protocol.errors import GameError
from fedoel.protocol.play import GameSpec, Observation
from fedoel.protocol.situation import ROOM_LINE

SEED = 3
TRANSCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from fedoel.games import build_game
from fedoel.protocol.play import GameSpec
game = build_game(GameSpec.parse(sys.argv[1]), Path(sys.argv[2]))
seen = [game.reset(int(sys.argv[3]))]
seen += [game.step(command) for command in game.walkthrough()]
print(json.dumps([asdict(observation) for observation in seen]))
"""


def by_walkthrough(game: Game) -> list[Observation]:
    seen = [game.reset(SEED)]
    return seen + [game.step(command) for command in game.walkthrough() or ()]


def test_the_walkthrough_wins(game: Game) -> None:
    *before, last = by_walkthrough(game)
    assert last.won and last.done and not last.lost and not last.truncated
    assert last.score == last.max_score > 0
    assert not any(observation.done for observation in before)
    assert all(observation.valid for observation in before)


def test_the_same_seed_gives_the_same_transcript(game: Game) -> None:
    assert by_walkthrough(game) == by_walkthrough(game)


def test_another_process_that_makes_the_game_itself_sees_the_same(spec: GameSpec, game: Game, tmp_path: Path) -> None:
    here = [asdict(observation) for observation in by_walkthrough(game)]
    there = subprocess.run(
        [sys.executable, "-c", TRANSCRIPT, str(spec), str(tmp_path), str(SEED)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONHASHSEED": "7"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert json.loads(there.stdout) == json.loads(json.dumps(here))


def test_another_seed_gives_another_game(game: Game) -> None:
    assert game.reset(SEED) != game.reset(SEED + 1)


def test_making_and_playing_leave_global_random_state_alone(spec: GameSpec, tmp_path: Path) -> None:
    with borrowed_textworld() as textworld:
        loader = textworld.generator.KnowledgeBase.__dict__
    loader_before, source = loader["load"], textworld.g_rng.seed
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    game = build_game(spec, tmp_path)
    by_walkthrough(game)
    game.close()
    assert (random.random(), np.random.rand()) == expected
    assert textworld.g_rng.seed == source
    assert isinstance(loader_before, classmethod | staticmethod) and isinstance(loader["load"], classmethod)


@pytest.mark.parametrize("suffix", ["\0", ".", " ", "\n", ". look"])
def test_only_exact_commands_act(game: Game, suffix: str) -> None:
    start = game.reset(SEED)
    refused = game.step(start.admissible[0] + suffix)
    assert not refused.valid and refused.turn == 1
    assert (refused.admissible, refused.score, refused.won) == (start.admissible, start.score, False)


@pytest.mark.parametrize("command", ["save", "script", "restart", "undo", "quit", "\0", "", "tw-extra-infos score"])
def test_what_the_interpreter_would_understand_never_reaches_it(game: Game, command: str) -> None:
    start = game.reset(SEED)
    assert not game.step(command).valid
    assert game.step(start.admissible[0]).valid


def test_running_several_commands_at_once_does_not_win(game: Game) -> None:
    game.reset(SEED)
    cheated = game.step(". ".join(game.walkthrough() or ()))
    assert not cheated.valid and not cheated.won and cheated.score == 0


def test_episodes_end_in_time(spec: GameSpec, cache: Path) -> None:
    for number in range(3):
        trajectory = play_scripted(spec, SEED, uniform, np.random.default_rng(number), cache)
        assert 1 <= len(trajectory.turns) <= spec.max_turns
        assert trajectory.won + trajectory.lost <= 1
        assert all(turn.log_probs.shape == (len(turn.situation.admissible),) for turn in trajectory.turns)


def test_won_is_latched_until_the_next_episode(game: Game) -> None:
    assert by_walkthrough(game)[-1].won
    with pytest.raises(GameError, match="over"):
        game.step("look")
    assert not game.reset(SEED).won


def test_rewards_of_a_won_episode_add_up_to_one(spec: GameSpec, cache: Path) -> None:
    trajectory = play_walkthrough(spec, SEED, cache)
    assert trajectory.won
    assert sum(turn.reward for turn in trajectory.turns) == pytest.approx(1.0)


def test_texts_hold_the_world_and_nothing_else(game: Game) -> None:
    first, *rest = by_walkthrough(game)
    assert ROOM_LINE.match(first.text)
    for observation in (first, *rest):
        for noise in ("$$", "The End", "score has", "RESTART", "\n\n", "\n>", "Welcome"):
            assert noise not in observation.text
    assert first.goal and "TextWorld" not in first.goal and "!" not in first.goal[:-1]
    assert "\n" not in first.goal


def test_coming_back_to_a_room_describes_it_in_full(cache: Path) -> None:
    game = build_game(GameSpec.parse("coin-collector level=102 turns=6"), cache)
    start = game.reset(SEED)
    out = next(command for command in start.admissible if command.startswith("go "))
    game.step(out)
    back = {"north": "south", "south": "north", "east": "west", "west": "east"}[out.removeprefix("go ")]
    assert game.step(f"go {back}").text.splitlines()[0] == start.text.splitlines()[0]
    game.close()
