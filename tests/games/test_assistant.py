"""The assistant: what is said, what is meant, and that neither luck nor the list of commands tells it."""

from __future__ import annotations

import sys
from collections import Counter
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.random import Generator

from fedoel.games.assistant import engine
from fedoel.games.assistant.commands import Command, Language, load_language
from fedoel.games.assistant.engine import LANGUAGES, MOST_COMMANDS, SPOKEN
from fedoel.games.assistant.request import (
    FIRST_PUBLIC_SEED,
    FIRST_SECRET_SEED,
    PERCENTAGES,
    SEEDS_OF_A_CLIENT,
    draw_home,
    draw_request,
)  # fmt: skip
from fedoel.games.assistant.templates import Template, Value, may_be_silent, parse, say, value_sets, variants
from fedoel.games.families import build_game, settings_of
from fedoel.games.heuristics import HEURISTICS, Player, uniform
from fedoel.games.scripted import play_scripted, play_walkthrough
from fedoel.games.splits import SECRET_GAMES, Split, for_split, game_seed, secret_seed
from fedoel.protocol.errors import ConfigError, GameError
from fedoel.protocol.play import GAMES_PER_CLIENT, GameSpec

SPEC = GameSpec.parse("assistant turns=1")
ENGLISH = load_language("en")
GAMES = 2000


def template(text: str, **rules: str) -> Template:
    return parse(text, lambda name: parse(rules[name], lambda other: template(rules[other], **rules)))


def sentences(text: str, rng: Generator, **rules: str) -> set[str]:
    return {say(template(text, **rules), {}, rng) for _ in range(300)}


def won(spec: GameSpec, player: Player) -> float:
    """Share of held-out games that a player wins."""
    rng, held_out = np.random.default_rng(0), for_split(spec, Split.HELD_OUT)
    seeds = [game_seed(Split.HELD_OUT, index) for index in range(GAMES)]
    return float(np.mean([play_scripted(held_out, seed, player, rng, Path()).won for seed in seeds]))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a (b|c) [d]", {"a b", "a b d", "a c", "a c d"}),
        ("[a|b] light[s]", {"light", "lights", "a light", "a lights", "b light", "b lights"}),
        ("(a;b c;[d])", {"a b c", "b c a", "a b c d", "a d b c", "b c a d", "b c d a", "d a b c", "d b c a"}),
        ("<turn> it", {"switch it", "turn on it"}),
    ],
)
def test_templates_say_what_their_notation_means(text: str, expected: set[str]) -> None:
    said = sentences(text, np.random.default_rng(0), turn="(switch|turn on)")
    assert said == expected


@pytest.mark.parametrize("text", ["(a", "a)", "[a)", "a]b", "a < b", "{x", "(a|b;c)"])
def test_templates_that_cannot_be_read_are_refused(text: str) -> None:
    with pytest.raises(GameError, match="template"):
        template(text)


def test_values_are_found_in_every_combination_and_said_once() -> None:
    room, color = Value("area", "area"), Value("colors", "color")
    both = template("[in {area}] (make it {colors:color}|light)")
    assert value_sets(both) == {frozenset(), frozenset({room}), frozenset({color}), frozenset({room, color})}
    said = say(both, {room: "the attic", color: "red"}, np.random.default_rng(0))
    assert said == "in the attic make it red"
    assert may_be_silent(template("[the] {area} [on]")) and not may_be_silent(template("{area} (on|off)"))


def test_variants_say_together_what_the_template_says() -> None:
    rng = np.random.default_rng(0)
    parts = list(variants(template("[the] (a|b) (c|d)")))
    assert len(parts) == 2 and list(variants(parts[0]))
    assert {say(part, {}, rng) for part in parts for _ in range(200)} == sentences("[the] (a|b) (c|d)", rng)


@pytest.mark.parametrize("split", [Split.PRIVATE, Split.REHEARSAL, Split.GATE, Split.HELD_OUT])
def test_the_walkthrough_wins(split: Split) -> None:
    spec = for_split(SPEC, split)
    played = [play_walkthrough(spec, game_seed(split, index), Path()) for index in range(50)]
    assert all(p.won and p.score == 1 and [turn.reward for turn in p.turns] == [1] for p in played)


def test_any_other_command_loses() -> None:
    game = build_game(SPEC, Path())
    for seed in range(30):
        shown = game.reset(seed)
        [right] = game.walkthrough() or ()
        wrong = next(command for command in shown.admissible if command != right)
        after = game.step(wrong)
        assert after.lost and after.done and not after.won and after.score == 0


@pytest.mark.parametrize("language", LANGUAGES)
def test_each_split_of_a_language_has_its_own_templates_for_every_command(language: str) -> None:
    commands = load_language(language).commands
    assert sum(2 if command.slots else 1 for command in commands) >= MOST_COMMANDS
    for command in commands:
        splits = [set(command.sentences[split]) for split in ("train", "valid", "test")]
        assert all(splits) and sum(map(len, splits)) == len(set().union(*splits)) == len(command.sentences["all"])


def test_english_has_every_command_of_the_table_and_names_are_complete() -> None:
    assert len(ENGLISH.commands) == 35
    named = [load_language(language) for language in SPOKEN]
    assert all((slot, v) in n.wordings for n in named for slot in ("area", "name", "item") for v in n.values[slot])


@given(
    st.sampled_from(LANGUAGES), st.integers(8, MOST_COMMANDS), st.sampled_from(["train", "valid", "test"]), st.data()
)
def test_one_listed_command_is_meant_and_no_two_mean_the_same(
    language: str, commands: int, split: str, data: st.DataObject
) -> None:
    seed = data.draw(st.one_of(st.integers(0, 10**8 - 1), st.integers(FIRST_PUBLIC_SEED, FIRST_PUBLIC_SEED * 2)))
    known = load_language(language)
    request = draw_request(known, commands, split, seed)
    assert request.meant in request.commands and len(set(request.commands)) == commands
    assert request.sentence and "{" not in request.sentence and "<" not in request.sentence
    meanings = {
        known.show(command, dict(zip(command.slots, values, strict=True))): (command.words, values)
        for command in known.commands
        for values in product(*(known.values[slot] for slot in command.slots))
    }
    assert len({meanings[shown] for shown in request.commands}) == commands
    assert request == draw_request(known, commands, split, seed)


def every_sentence(
    language: Language, command: Command, slots: dict[str, str | int], rng: Generator
) -> set[tuple[str, str]]:
    """Sentences that ask for a command, each with the room in which it does; the room is empty if any will do."""
    said = set()
    for sentence in command.sentences["all"]:
        for _ in range(25):
            wording = {
                v: slots[v.slot]
                if isinstance(slots[v.slot], int)
                else say(language.wordings[v.slot, slots[v.slot]], {}, rng)
                for v in sorted(sentence.values)
            }
            room = str(slots["area"]) if sentence.is_local else ""
            said.add((room, say(sentence.template, {v: str(word) for v, word in wording.items()}, rng)))
    return said


@pytest.mark.parametrize("language", ["en", "de"])
def test_no_sentence_asks_for_two_commands(language: str) -> None:
    known, rng = load_language(language), np.random.default_rng(0)
    home = draw_home(known, 5)
    values = {**home.values, **dict.fromkeys(PERCENTAGES, home.values["brightness"])}
    meanings: dict[str, dict[str, set[str]]] = {}
    for command in known.commands:
        for chosen in product(*(values[slot][:2] for slot in command.slots)):
            slots = dict(zip(command.slots, chosen, strict=True))
            for room, sentence in every_sentence(known, command, slots, rng):
                meanings.setdefault(sentence, {}).setdefault(room, set()).add(known.show(command, slots))
    for sentence, rooms in meanings.items():
        anywhere = rooms.get("", set())
        assert all(len(meant | anywhere) == 1 for meant in rooms.values()), (sentence, rooms)


def test_the_list_of_commands_does_not_tell_which_is_meant() -> None:
    """Neither the place in the list, nor a command's likeness to the others, nor how often it was meant in training."""
    for_training = [draw_request(ENGLISH, 8, "train", game_seed(Split.REHEARSAL, index)) for index in range(GAMES)]
    often = Counter(request.meant for request in for_training)
    held_out = [draw_request(ENGLISH, 8, "test", game_seed(Split.HELD_OUT, index)) for index in range(GAMES)]

    def likeness(command: str, others: tuple[str, ...]) -> int:
        return sum(len(set(command.split()) & set(other.split())) for other in others)

    guesses = {
        "first": [r.commands[0] for r in held_out],
        "most alike": [max(r.commands, key=lambda c: likeness(c, r.commands)) for r in held_out],
        "most often meant": [max(r.commands, key=lambda c: often[c]) for r in held_out],
    }
    error = 3 * (1 / 8 * 7 / 8 / GAMES) ** 0.5
    for name, guessed in guesses.items():
        right = np.mean([guess == request.meant for guess, request in zip(guessed, held_out, strict=True)])
        assert right == pytest.approx(1 / 8, abs=error), name


def test_luck_wins_one_in_as_many_as_there_are_commands_and_shared_words_win_more() -> None:
    assert won(SPEC, uniform) == pytest.approx(1 / 8, abs=0.025)
    assert won(SPEC, HEURISTICS["assistant"]) == pytest.approx(0.73, abs=0.03)
    many = GameSpec.parse("assistant commands=20 turns=1")
    assert won(many, HEURISTICS["assistant"]) == pytest.approx(0.59, abs=0.03)
    german = GameSpec.parse("assistant language=de turns=1")
    assert won(german, HEURISTICS["assistant"]) == pytest.approx(0.36, abs=0.03)


def test_a_client_has_one_home_and_clients_differ() -> None:
    assert SEEDS_OF_A_CLIENT == GAMES_PER_CLIENT and game_seed(Split.REHEARSAL, 0) == FIRST_PUBLIC_SEED
    homes = [[draw_home(ENGLISH, game_seed(Split.PRIVATE, index, client)) for index in (0, 9)] for client in range(20)]
    assert all(first.values == second.values and (first.habits == second.habits).all() for first, second in homes)
    assert len({tuple(first.values["area"]) for first, _ in homes}) == 20
    assert all(home.habits.max() > 2.5 / len(home.habits) for home, _ in homes)
    public = [draw_home(ENGLISH, game_seed(Split.GATE, index)) for index in range(2)]
    assert public[0].values != public[1].values
    assert SECRET_GAMES[0] == FIRST_SECRET_SEED
    deployed = [[draw_home(ENGLISH, secret_seed(secret, cycle, 3)) for cycle in (1, 2)] for secret in range(20)]
    assert all(first.values == second.values for first, second in deployed)
    assert len({tuple(first.values["area"]) for first, _ in deployed}) > 15


def test_homes_may_speak_several_languages() -> None:
    game, texts = build_game(GameSpec.parse("assistant language=several turns=1"), Path()), []
    for client in range(len(SPOKEN)):
        seed = game_seed(Split.PRIVATE, 5, client)
        texts.append(game.reset(seed).text)
        alone = build_game(GameSpec.parse(f"assistant language={SPOKEN[client]} turns=1"), Path())
        assert alone.reset(seed).text == texts[-1]
    assert len(set(texts)) == len(SPOKEN)


def test_without_the_package_one_sentence_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    message = "needs home-assistant-intents, which is not installed: pip install 'fedoel"
    monkeypatch.setattr(engine, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match=message):
        settings_of(SPEC)
    monkeypatch.setitem(sys.modules, "home_assistant_intents", None)
    with pytest.raises(GameError, match=message):
        load_language.__wrapped__("en")


@pytest.mark.parametrize("settings", ["commands=7", "commands=21", "language=sw", "language=xx", "split=valid2"])
def test_settings_are_limited(settings: str) -> None:
    with pytest.raises(ConfigError, match="must be"):
        settings_of(GameSpec.parse(f"assistant {settings} turns=1"))
