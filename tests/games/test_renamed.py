"""A renamed game is the same game in words that the `tactics` codec does not know."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.tactics.coordinates import MOVES, SAME_MOVE, move_of
from fedoel.games.express import missing
from fedoel.games.families import FAMILIES, Family, Flag, build_game, content_of, is_prepared, prepare_game, unrenamed
from fedoel.games.game import Engine
from fedoel.games.grid.frozen_lake import FrozenLakeEngine, check_lake
from fedoel.games.heuristics import uniform
from fedoel.games.renamed import DIRECTIONS, VERBS, rename_command, rename_text
from fedoel.games.scripted import play_scripted
from fedoel.games.splits import Split, assert_disjoint, fingerprint, game_seed
from fedoel.protocol.errors import ConfigError, GameError
from fedoel.protocol.play import GameSpec, Setting
from fedoel.protocol.situation import Memory

PLAIN = [
    "coin-collector level=102 turns=6", "treasure-hunter level=5 turns=10",
    "cooking recipe=2 take=2 open=1 cook=1 cut=1 drop=1 turns=30", "frozen-lake turns=6", "sokoban turns=5",
    "orchard turns=8", "mirror-orchard turns=8", "tidy things=2 rooms=3 turns=30", "assistant turns=1",
    "reasoning turns=1",
    *([] if missing() else ["express kind=twc turns=12"]),
]  # fmt: skip
SEED = 4

TACTIC_WORDS = {*SAME_MOVE, *(word for move in MOVES for word in move.split())}


def renamed(spec: GameSpec) -> GameSpec:
    return GameSpec(spec.family, tuple(sorted({**dict(spec.settings), "renamed": 1}.items())), spec.max_turns)


def test_renaming_is_one_to_one_and_no_new_word_is_an_old_one() -> None:
    old, new = {**VERBS, **DIRECTIONS}, [*VERBS.values(), *DIRECTIONS.values()]
    assert len(set(new)) == len(new) == len(old)
    assert not set(new) & set(old)
    assert all(word.isalpha() and word.islower() for word in new)  # one word for one word


def test_the_tactics_codec_knows_no_new_verb() -> None:
    assert not set(VERBS.values()) & TACTIC_WORDS
    for verb in VERBS:
        assert (
            move_of(rename_command(f"{verb} coin from table")) == move_of(rename_command(f"{verb} coin")) == len(MOVES)
        )


@pytest.mark.parametrize("text", PLAIN)
def test_it_is_the_same_game_step_by_step(text: str, cache: Path) -> None:
    spec = GameSpec.parse(text)
    rng, verbs = np.random.default_rng(0), set[str]()
    one, other = build_game(spec, cache), build_game(renamed(spec), cache)
    plain, changed = one.reset(SEED), other.reset(SEED)
    while True:
        assert changed.admissible == tuple(map(rename_command, plain.admissible))
        assert len(set(changed.admissible)) == len(plain.admissible)
        assert (changed.score, changed.done, changed.won, changed.lost) == (
            plain.score,
            plain.done,
            plain.won,
            plain.lost,
        )
        assert (changed.text, changed.goal) == (rename_text(plain.text), rename_text(plain.goal))
        verbs |= {command.split()[0] for command in changed.admissible}
        if plain.done:
            break
        choice = int(rng.integers(len(plain.admissible)))
        plain, changed = one.step(plain.admissible[choice]), other.step(changed.admissible[choice])
    assert not verbs & TACTIC_WORDS  # no verb of the public tactics is left
    walk = one.walkthrough()
    assert walk is not None
    assert other.walkthrough() == tuple(map(rename_command, walk))
    for game in (one, other):
        game.close()


def test_the_original_words_are_inadmissible(cache: Path) -> None:
    game = build_game(renamed(GameSpec.parse(PLAIN[0])), cache)
    start = game.reset(SEED)
    move = next(command for command in start.admissible if command.startswith("walk "))
    assert not game.step(move.replace("walk", "go").removesuffix("ward")).valid
    assert game.step(move).valid
    game.close()


@pytest.mark.parametrize(
    ("text", "renamed_text"),
    [
        ("There is an open door. An exit to the north.", "There is an open door. An exit to the northward."),
        ("You open the fridge.", "You unseal the fridge."),
        ("You take the knife from the table.", "You grab the knife from the table."),
        ("Directions:\n  chop the carrot\n  prepare meal", "Directions:\n  hack the carrot\n  assemble meal"),
        ("Take the coin.", "Grab the coin."),
        ("Look at that! East of here, a table. You could go west.",
         "Look at that! Eastward of here, a table. You could go westward."),
        ("-= Kitchen =-\nA closed chest, a northern light, the undertaker.",
         "-= Kitchen =-\nA closed chest, a northern light, the undertaker."),
    ],
)  # fmt: skip
def test_replies_are_renamed_where_a_word_is_a_verb(text: str, renamed_text: str) -> None:
    assert rename_text(text) == renamed_text


def test_the_way_back_is_known_in_both() -> None:
    for move, back in (
        ("go north", "go south"),
        ("walk northward", "walk southward"),
        ("walk leftward", "walk rightward"),
    ):
        memory = Memory("Go.", 5)
        memory.see("-= A =-", (move,), 0)
        memory.do(move)
        assert memory.see("-= B =-", (back,), 1).back == back


@pytest.mark.parametrize("text", PLAIN)
def test_content_does_not_depend_on_wording(text: str, cache: Path) -> None:
    spec = GameSpec.parse(text)
    assert content_of(renamed(spec)) == content_of(spec)
    assert unrenamed(renamed(spec)) == spec == unrenamed(spec)
    assert fingerprint(renamed(spec), 1) == fingerprint(spec, 1) != fingerprint(spec, 2)
    prepare_game(spec, SEED, cache)
    assert is_prepared(renamed(spec), SEED, cache)
    assert not prepare_game(renamed(spec), SEED, cache)
    held_out = [(renamed(spec), game_seed(Split.HELD_OUT, 3))]
    assert_disjoint([(spec, game_seed(Split.GATE, 3))], held_out)
    with pytest.raises(GameError, match="was trained on"):
        assert_disjoint([(spec, game_seed(Split.HELD_OUT, 3))], held_out)


def test_a_random_player_wins_as_often_in_either_wording(cache: Path) -> None:
    spec = GameSpec.parse("frozen-lake turns=6")
    for number in range(20):
        one, other = (
            play_scripted(variant, number, uniform, np.random.default_rng(number), cache)
            for variant in (spec, renamed(spec))
        )
        assert [turn.action for turn in one.turns] == [turn.action for turn in other.turns]
        assert one.won == other.won


def test_a_plugged_in_family_is_renamed_too(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    received = list[Mapping[str, Setting]]()

    def engine(family: str, settings: Mapping[str, Setting], cache: Path) -> Engine:
        received.append(settings)
        return FrozenLakeEngine(settings)

    def check(settings: Mapping[str, Setting]) -> str:
        received.append(settings)
        return check_lake(settings)

    here = sys.modules[__name__]
    monkeypatch.setattr(here, "MINE", Family(FAMILIES["frozen-lake"].rules, engine, check), raising=False)
    monkeypatch.setattr(here, "TAKEN", Family({"renamed": Flag()}, engine), raising=False)
    game = build_game(GameSpec.parse(f"{__name__}:MINE renamed=1 turns=6"), cache)
    assert {command.split()[0] for command in game.reset(SEED).admissible} == {"walk"}
    game.close()
    assert received and all(set(settings) == {"size", "holes", "split"} for settings in received)
    with pytest.raises(ConfigError, match="must rename its setting renamed"):
        build_game(GameSpec.parse(f"{__name__}:TAKEN turns=6"), cache)


def test_every_family_can_be_renamed() -> None:
    assert {GameSpec.parse(text).family for text in PLAIN} == set(FAMILIES) - ({"express"} if missing() else set())


@pytest.mark.parametrize("text", ["tidy open=1 turns=2", "assistant open=1 turns=1", "reasoning open=1 turns=1"])
def test_any_text_may_be_answered_in_other_words_too(text: str, cache: Path) -> None:
    game = build_game(renamed(GameSpec.parse(text)), cache)
    assert game.reset(SEED).open
    assert not game.step("hello there").valid
    game.reset(SEED)
    [answer] = game.walkthrough() or ()
    assert game.step(answer).won
