"""The contract of every game family, tested on one game of each."""

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

from fedoel.games.families import build_game
from fedoel.games.game import Game
from fedoel.games.heuristics import uniform
from fedoel.games.scripted import play_scripted, play_walkthrough
from fedoel.games.textworld.generate import borrowed_textworld
from fedoel.protocol.errors import GameError
from fedoel.protocol.play import GameSpec, Observation
from fedoel.protocol.situation import ROOM_LINE

SEED = 3
TRANSCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from fedoel.games.families import build_game
from fedoel.protocol.play import GameSpec
game = build_game(GameSpec.parse(sys.argv[1]), Path(sys.argv[2]))
observations = [game.reset(int(sys.argv[3]))]
observations += [game.step(command) for command in game.walkthrough()]
print(json.dumps([asdict(observation) for observation in observations]))
"""


def walkthrough_observations(game: Game) -> list[Observation]:
    first = game.reset(SEED)
    return [first] + [game.step(command) for command in game.walkthrough() or ()]


def test_the_walkthrough_wins(game: Game) -> None:
    *before, last = walkthrough_observations(game)
    assert last.won and last.done and not last.lost and not last.truncated
    assert last.score == last.max_score > 0
    assert not any(observation.done for observation in before)
    assert all(observation.valid for observation in before)


def test_the_same_seed_gives_the_same_transcript(game: Game) -> None:
    assert walkthrough_observations(game) == walkthrough_observations(game)


def test_another_process_that_builds_the_game_sees_the_same(spec: GameSpec, game: Game, tmp_path: Path) -> None:
    here = [asdict(observation) for observation in walkthrough_observations(game)]
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


def test_building_and_playing_leave_global_state_unchanged(spec: GameSpec, tmp_path: Path) -> None:
    with borrowed_textworld() as textworld:
        attributes = textworld.generator.KnowledgeBase.__dict__
    load_before, seed_before = attributes["load"], textworld.g_rng.seed
    random.seed(1)
    np.random.seed(1)
    expected = random.random(), np.random.rand()
    random.seed(1)
    np.random.seed(1)
    game = build_game(spec, tmp_path)
    walkthrough_observations(game)
    game.close()
    assert (random.random(), np.random.rand()) == expected
    assert textworld.g_rng.seed == seed_before
    assert isinstance(load_before, classmethod | staticmethod) and isinstance(attributes["load"], classmethod)


@pytest.mark.parametrize("suffix", ["\0", ".", " ", "\n", ". look"])
def test_only_exact_commands_act(game: Game, suffix: str) -> None:
    start = game.reset(SEED)
    refused = game.step(start.admissible[0] + suffix)
    assert not refused.valid and refused.turn == 1
    assert (refused.admissible, refused.score, refused.won) == (start.admissible, start.score, False)


@pytest.mark.parametrize("command", ["save", "script", "restart", "undo", "quit", "\0", "", "tw-extra-infos score"])
def test_interpreter_commands_are_not_forwarded(game: Game, command: str) -> None:
    start = game.reset(SEED)
    assert not game.step(command).valid
    assert game.step(start.admissible[0]).valid


def test_several_commands_in_one_line_are_refused(game: Game) -> None:
    first = game.reset(SEED)
    refused = game.step(". ".join((*(game.walkthrough() or ()), first.admissible[0])))
    assert not refused.valid and not refused.won and refused.score == 0


def test_episodes_end_within_the_turn_limit(spec: GameSpec, cache: Path) -> None:
    for number in range(3):
        trajectory = play_scripted(spec, SEED, uniform, np.random.default_rng(number), cache)
        assert 1 <= len(trajectory.turns) <= spec.max_turns
        assert trajectory.won + trajectory.lost <= 1
        assert all(turn.log_probs.shape == (len(turn.situation.admissible),) for turn in trajectory.turns)


def test_won_holds_until_the_next_episode(game: Game) -> None:
    assert walkthrough_observations(game)[-1].won
    with pytest.raises(GameError, match="over"):
        game.step("look")
    assert not game.reset(SEED).won


def test_rewards_of_a_won_episode_add_up_to_one(spec: GameSpec, cache: Path) -> None:
    trajectory = play_walkthrough(spec, SEED, cache)
    assert trajectory.won
    assert sum(turn.reward for turn in trajectory.turns) == pytest.approx(1.0)


def test_texts_contain_no_banner_score_or_prompt(game: Game) -> None:
    first, *rest = walkthrough_observations(game)
    assert ROOM_LINE.match(first.text)
    for observation in (first, *rest):
        for noise in ("$$", "The End", "score has", "RESTART", "\n\n", "\n>", "Welcome"):
            assert noise not in observation.text
    assert first.goal and "TextWorld" not in first.goal and "!" not in first.goal[:-1]
    assert "\n" not in first.goal


def test_coming_back_to_a_room_describes_it_in_full(cache: Path) -> None:
    game = build_game(GameSpec.parse("coin-collector level=102 turns=6"), cache)
    start = game.reset(SEED)
    exit_command = next(command for command in start.admissible if command.startswith("go "))
    game.step(exit_command)
    back = {"north": "south", "south": "north", "east": "west", "west": "east"}[exit_command.removeprefix("go ")]
    assert game.step(f"go {back}").text.splitlines()[0] == start.text.splitlines()[0]
    game.close()
