"""What is removed from TextWorld's texts."""

from __future__ import annotations

import pytest

from fedoel.games.textworld.engine import clean, first_room, goal_of

TASK = "Recover the coin from the floor of the bedroom."


@pytest.mark.parametrize(
    "intro",
    [
        "Welcome to TextWorld! Your task for today is to recover",
        "Welcome to another fast paced round of TextWorld! recover",
        "Your objective is to recover",
        "Hey, thanks for coming over to TextWorld! Please recover",
        "Who's got a virtual machine and is about to play through an epic round of TextWorld? You do! Recover",
        "Get ready to pick stuff up, because you've just entered TextWorld! Your task for today is to recover",
    ],
)
def test_a_goal_is_the_task_alone(intro: str) -> None:
    assert goal_of(f"{intro} the coin from the floor of the bedroom.") == TASK


def test_the_goal_of_cooking_keeps_the_task() -> None:
    assert goal_of("You are hungry! Let's cook a delicious meal. Enjoy your meal!") == (
        "Let's cook a delicious meal. Enjoy your meal!"
    )


def test_score_ending_prompt_and_blank_lines_are_removed() -> None:
    assert clean("\nTaken.\n\n\n\nYour score has just gone up by one point.\n\n\n") == "Taken."
    assert clean("Eaten.\n\n   *** The End ***\n\nYou scored 1 out of a possible 1.\n\nWould you like to") == "Eaten."
    assert clean("Oh.\n\n   *** You lost! ***\n\nYou scored 0.") == "Oh."
    assert clean("A\n\n\n\nB\n>      -= Kitchen =-0/12\n") == "A\nB"
    assert clean("A\n> \n") == "A"


def test_the_banner_is_removed() -> None:
    assert first_room("$$ | $$\n\nWelcome!\n\n-= Shower =-\nA shower.\n\n\n\nAn exit.\n") == (
        "-= Shower =-\nA shower.\nAn exit."
    )
