"""Open answers about where things belong: what is understood, how it is judged, and who wins."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.games.families import build_game
from fedoel.games.game import RuledGame
from fedoel.games.heuristics import HEURISTICS
from fedoel.games.scripted import play_scripted, play_walkthrough
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.games.tidy.asking import AskingEngine, place_named
from fedoel.protocol.play import GameSpec

LEVELS = ("tidy open=1 turns=1", "tidy things=3 rooms=2 open=1 turns=3", "tidy things=5 places=6 open=1 turns=9")
PLACES = ("kitchen cabinet", "cabinet", "toy box")


@pytest.mark.parametrize("text", LEVELS)
@pytest.mark.parametrize("split", [Split.PRIVATE, Split.GATE, Split.HELD_OUT])
def test_who_knows_the_table_wins(text: str, split: Split, tmp_path: Path) -> None:
    import numpy as np

    spec = for_split(GameSpec.parse(text), split)
    for index in range(10):
        seed = game_seed(split, index)
        assert play_walkthrough(spec, seed, tmp_path).won
        assert play_scripted(spec, seed, HEURISTICS["tidy"], np.random.default_rng(0), tmp_path).won


@pytest.mark.parametrize(
    "answer",
    [
        "toy box",
        "Toy box.",
        "in the toy box",
        "Put the ball in the toy box!",
        "put ball into toy box",
        "Put it in the toy box",
    ],
)
def test_an_answer_may_be_a_sentence(answer: str) -> None:
    assert place_named(answer, "ball", PLACES) == "toy box"


@pytest.mark.parametrize(
    "answer", ["", "box", "toy box or cabinet", "not in the toy box", "put the doll in the toy box", "..."]
)
def test_what_names_no_place_or_more_than_one_is_not_understood(answer: str) -> None:
    assert not place_named(answer, "ball", PLACES)


def test_a_place_whose_name_ends_as_another_is_not_taken_for_it() -> None:
    assert place_named("the kitchen cabinet", "cup", PLACES) == "kitchen cabinet"
    assert place_named("in the cabinet", "cup", PLACES) == "cabinet"


def test_a_refused_answer_costs_a_turn_and_a_wrong_one_is_not_told(tmp_path: Path) -> None:
    game = build_game(GameSpec.parse("tidy things=2 open=1 turns=4"), tmp_path)
    first = game.reset(3)
    right = game.walkthrough()
    assert first.open and right is not None and "In your hands" in first.text
    refused = game.step("on the moon")
    assert (refused.valid, refused.done, refused.turn, refused.score) == (False, False, 1, 0.0)
    wrong = next(place for place in first.admissible if place != right[0])
    second = game.step(wrong)
    assert second.valid and not second.done and "not" not in second.text
    last = game.step(right[1])
    assert (last.done, last.won, last.lost, last.score, last.max_score) == (True, False, False, 1.0, 2.0)


@given(st.lists(st.text(max_size=30), max_size=12), st.integers(0, 50))
def test_any_text_is_judged(answers: list[str], seed: int) -> None:
    game = RuledGame(AskingEngine({"things": 2, "rooms": 1, "places": 4, "split": "train"}), 12)
    observation = game.reset(seed)
    for answer in answers:
        if observation.done:
            break
        observation = game.step(answer)
        assert 0 <= observation.score <= observation.max_score
