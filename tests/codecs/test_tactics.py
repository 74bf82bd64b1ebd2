from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.tactics.coordinates import DIMENSION, cells, tactic_name, tilt
from fedoel.protocol.situation import Memory, Situation


def situation(*commands: str, goal: str = "Take the coin.", last: str = "") -> Situation:
    memory = Memory(goal, 9)
    first = memory.see("-= Hall =-\nA hall.", commands, 0)
    if not last:
        return first
    memory.do(last)
    return memory.see("Done.", commands, 1)


def name(commands: tuple[str, ...], index: int = 0, **options: str) -> str:
    return tactic_name(int(cells(situation(*commands, **options))[index]))


def test_names_say_move_and_facets() -> None:
    assert name(("take coin", "look")) == "take · named in the goal · not yet tried here"
    assert name(("take lamp from table", "look")) == "take from · not yet tried here"
    assert name(("look", "go east"), last="look") == "look · tried here"
    assert name(("read book", "look")) == "examine · not yet tried here"
    assert name(("dance", "look")) == "other verb · not yet tried here"


def test_every_coordinate_has_a_name_of_its_own() -> None:
    assert len({tactic_name(cell) for cell in range(DIMENSION)}) == DIMENSION


@given(st.lists(st.text(min_size=1).filter(str.strip), min_size=1, max_size=8, unique=True))
def test_any_command_has_exactly_one_tactic(commands: list[str]) -> None:
    found = cells(situation(*commands))
    assert found.shape == (len(commands),)
    assert ((found >= 0) & (found < DIMENSION)).all()


@given(st.integers(0, 2**32 - 1))
def test_a_tilt_is_a_distribution_and_no_tilt_changes_nothing(seed: int) -> None:
    rng = np.random.default_rng(seed)
    here = situation("take coin", "go east", "look", "drop lamp")
    logits = rng.normal(size=4)
    log_probs = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
    weights = rng.normal(size=DIMENSION).astype(np.float32)
    assert np.isclose(np.exp(tilt(log_probs, here, weights)).sum(), 1.0, atol=1e-5)
    assert np.allclose(tilt(log_probs, here, np.zeros_like(weights)), log_probs, atol=1e-6)
    expected = log_probs + weights[cells(here)]
    assert np.allclose(np.diff(tilt(log_probs, here, weights)), np.diff(expected), atol=1e-5)


@pytest.mark.parametrize("odd", ["", " ", "\x00", "take \x00", "\x1c", "é\N{SNOWMAN}", "take  from", "drop "])
def test_odd_commands_have_a_tactic_too(odd: str) -> None:
    found = cells(situation("look", odd))
    assert ((found >= 0) & (found < DIMENSION)).all()


def test_cues_hold_across_families() -> None:
    note = "Recipe: chop the red onion, fry it, and prepare the meal."
    cook = replace(
        situation("chop onion with knife", "cook lamp with stove", goal="Eat."), note=note, carried=("lamp",)
    )
    assert [tactic_name(int(cell)) for cell in cells(cook)] == [
        "cut with · named in what was read · not yet tried here",
        "cook with · not yet tried here · of what is carried, or straight back",
    ]
    hunt = replace(situation("unlock chest with key", "go west", goal="Open the chest."), back="go west")
    assert [tactic_name(int(cell)) for cell in cells(hunt)] == [
        "unlock with · named in the goal · not yet tried here",
        "go · not yet tried here · of what is carried, or straight back",
    ]


def test_what_is_carried_is_looked_for_as_whole_words() -> None:
    keys = replace(situation("unlock door with key", "examine keyhole", goal="Leave."), carried=("key",))
    named = [tactic_name(int(cell)) for cell in cells(keys)]
    assert [("of what is carried" in name) for name in named] == [True, False]


def test_a_command_that_just_appeared_is_newly_possible() -> None:
    fresh = replace(situation("take coin", "look"), fresh=("take coin",))
    assert tactic_name(int(cells(fresh)[0])) == "take · named in the goal · newly possible"
