"""Playing: settings, scores, placements that are final, and what holds of any sequence of commands."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.games.families import build_game
from fedoel.games.game import Game
from fedoel.games.heuristics import HEURISTICS
from fedoel.games.scripted import play_scripted, play_walkthrough
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.games.tidy.table import load_table
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import GameSpec, Observation

LEVELS = (
    "tidy turns=2",
    "tidy things=2 final=1 turns=4",
    "tidy things=3 rooms=2 places=6 turns=18",
    "tidy things=5 rooms=3 turns=40",
)


def start(text: str, seed: int = 3, cache: Path = Path()) -> tuple[Game, Observation]:
    game = build_game(GameSpec.parse(text), cache)
    return game, game.reset(seed)


@pytest.mark.parametrize("text", LEVELS)
@pytest.mark.parametrize("split", [Split.PRIVATE, Split.GATE, Split.HELD_OUT])
def test_the_walkthrough_wins_with_things_of_the_split(text: str, split: Split, tmp_path: Path) -> None:
    spec = for_split(GameSpec.parse(text), split)
    things = {thing for ts in load_table().things[dict(spec.settings)["split"]].values() for thing in ts}  # type: ignore[index]
    for index in range(20):
        trajectory = play_walkthrough(spec, game_seed(split, index), tmp_path)
        taken = {turn.command.removeprefix("take ") for turn in trajectory.turns if turn.command.startswith("take ")}
        assert trajectory.won and trajectory.score == 1
        assert len(taken) == dict(spec.settings).get("things", 1) and taken <= things


def test_a_player_who_knows_the_table_wins_by_reading(tmp_path: Path) -> None:
    spec, rng = GameSpec.parse("tidy things=3 rooms=3 turns=60"), np.random.default_rng(0)
    assert all(play_scripted(spec, seed, HEURISTICS["tidy"], rng, tmp_path).won for seed in range(30))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("tidy things=6 turns=3", "from 1 to 5"), ("tidy rooms=0 turns=3", "from 1 to 3"),
        ("tidy places=2 turns=3", "from 3 to 6"), ("tidy final=2 turns=3", "must be 1 or 0"),
    ],
)  # fmt: skip
def test_settings_are_limited(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        start(text)


def test_a_wrong_placement_counts_nothing_and_can_be_taken_back() -> None:
    game, first = start("tidy things=2 places=3 turns=30")
    take, put, *_ = game.walkthrough() or ()
    wrong = next(c for c in game.step(take).admissible if c.startswith("put ") and c != put)
    assert first.score == 0 and first.max_score == 2
    again = next(c for c in game.step(wrong).admissible if c.startswith(f"{take} from "))
    assert game.step(again).score == 0
    right = game.step(put)
    assert (right.score, right.won) == (1, False)
    back = next(c for c in right.admissible if c.startswith(f"{take} from "))
    assert game.step(back).score == 0  # it is in the player's hands again


def test_final_placements_stay_and_the_last_one_ends_the_episode() -> None:
    game, _ = start("tidy things=2 final=1 turns=30")
    take, put, *rest = game.walkthrough() or ()
    wrong = next(c for c in game.step(take).admissible if c.startswith("put ") and c != put)
    assert not any(" from " in command for command in game.step(wrong).admissible)
    last = [game.step(command) for command in rest][-1]
    assert (last.score, last.done, last.won, last.lost, last.truncated) == (1, True, False, False, False)


@given(st.data())
def test_listed_commands_are_accepted_and_every_thing_is_somewhere(data: st.DataObject) -> None:
    things, rooms, places = (data.draw(st.integers(*range_)) for range_ in ((1, 5), (1, 3), (3, 6)))
    settings = f"things={things} rooms={rooms} places={places} final={data.draw(st.integers(0, 1))}"
    game, shown = start(f"tidy {settings} turns=25", data.draw(st.integers(0, 2**31 - 1)))
    named = sorted(c.removeprefix("take ") for c in game.walkthrough() or () if c.startswith("take "))
    lying: dict[str, list[str]] = {}  # by room: what lay there when the player saw it last
    while not shown.done:
        room, *lines = shown.text.splitlines()
        parts = [line.rstrip(".").split(": ") for line in lines]
        spots = {name: rest.split(", ") for name, rest in parts if name not in ("Furniture", "Doors")}
        carried = spots.pop("In your hands", [])
        lying[room] = [thing for spot in spots.values() for thing in spot]
        assert len(lying) < rooms or sorted([*carried, *(t for ts in lying.values() for t in ts)]) == named
        shown = game.step(data.draw(st.sampled_from(shown.admissible)))
        assert shown.valid and 0 <= shown.score <= shown.max_score == things
        assert shown.won == (shown.score == things)
