from __future__ import annotations

from dataclasses import replace

import pytest

from fedoel.protocol.prompts import LONGEST_REPLY, PROMPT_VERSION, render
from fedoel.protocol.situation import Situation

BARE = Situation(
    goal="Take the coin.",
    place="Hall",
    place_text="-= Hall =-\nA hall.",
    reply="",
    last="",
    carried=(),
    note="",
    done_here=(),
    done=frozenset(),
    fresh=(),
    back="",
    admissible=("go east", "look"),
    turn=0,
    max_turns=5,
)
FULL = replace(
    BARE,
    reply="Nothing  happens.",
    carried=("lamp", "key"),
    note="Recipe: eat.",
    done_here=("look",),
    fresh=("eat key",),
    back="go west",
)


def test_a_situation_without_history_is_goal_and_room() -> None:
    prompt = render(BARE)
    assert prompt.scene == "Goal: Take the coin.\n-= Hall =-\nA hall.\n"
    assert prompt.moment == "Tried here: nothing"


def test_every_field_is_in_its_segment() -> None:
    prompt = render(FULL)
    assert prompt.scene.endswith("\nRead: Recipe: eat.\n")
    assert prompt.moment.split("\n") == [
        "Carrying: lamp, key",
        "Tried here: look",
        "New: eat key",
        "Way back: go west",
        "Last: Nothing happens.",
    ]


@pytest.mark.parametrize("change", [{"turn": 3}, {"max_turns": 50}, {"admissible": ("sing",)}])
def test_turns_and_admissible_commands_are_not_in_the_prompt(change: dict[str, object]) -> None:
    assert render(replace(FULL, **change)) == render(FULL)  # type: ignore[arg-type]


@pytest.mark.parametrize("change", [{"reply": "x"}, {"carried": ()}, {"done_here": ()}, {"fresh": ()}, {"back": ""}])
def test_fields_that_change_every_turn_do_not_change_the_scene(change: dict[str, object]) -> None:
    changed = render(replace(FULL, **change))  # type: ignore[arg-type]
    assert changed.scene == render(FULL).scene
    assert changed.moment != render(FULL).moment


def test_a_reply_is_shown_up_to_its_longest_length() -> None:
    longest = " ".join(["word"] * LONGEST_REPLY)
    assert render(replace(BARE, reply=longest)).moment == f"Last: {longest}"
    assert render(replace(BARE, reply=f"{longest} more")).moment == "Tried here: nothing"


def test_a_reply_that_is_the_note_is_not_repeated() -> None:
    assert "Last" not in render(replace(FULL, reply="Recipe:\n eat.")).moment


def test_the_version_is_16_hexadecimal_digits() -> None:
    assert len(PROMPT_VERSION) == 16
    assert int(PROMPT_VERSION, 16) >= 0
