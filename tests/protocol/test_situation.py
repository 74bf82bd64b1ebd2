from __future__ import annotations

from fedoel.protocol.situation import Memory

KITCHEN = "-= Kitchen =-\nYou are in a kitchen. There is a door."
HALL = "-= Hall =-\nYou are in a hall."
RECIPE = "You open the cookbook and read: Recipe: take one red apple, prepare it well, and then eat the meal."


def test_a_room_line_begins_a_room_description() -> None:
    memory = Memory("Find the coin.", 5)
    situation = memory.see(KITCHEN, ("go east", "look"), 0)
    assert (situation.place, situation.place_text, situation.reply) == ("Kitchen", KITCHEN, "")


def test_moving_remembers_the_way_back_and_what_was_tried_in_each_room() -> None:
    memory = Memory("Find the coin.", 5)
    memory.see(KITCHEN, ("go east", "look"), 0)
    memory.do("go east")
    hall = memory.see(HALL, ("go west", "look"), 1)
    assert (hall.back, hall.done_here, hall.fresh) == ("go west", (), ())
    memory.do("go west")
    again = memory.see(KITCHEN, ("go east", "look"), 2)
    assert again.done_here == ("go east",)
    assert again.done == {"go east", "go west"}


def test_commands_that_appear_without_moving_are_fresh() -> None:
    memory = Memory("Eat.", 5)
    memory.see(KITCHEN, ("take apple", "look"), 0)
    memory.do("take apple")
    situation = memory.see("You take the apple.", ("drop apple", "eat apple", "look"), 1)
    assert situation.fresh == ("drop apple", "eat apple")
    assert situation.carried == ("apple",)
    assert situation.reply == "You take the apple."


def test_the_longest_informative_reply_is_the_note() -> None:
    memory = Memory("Cook.", 5)
    memory.see(KITCHEN, ("examine cookbook", "look"), 0)
    memory.do("examine cookbook")
    assert memory.see(RECIPE, ("look",), 1).note == RECIPE
    memory.do("look")
    assert memory.see("Nothing here.", ("look",), 2).note == RECIPE


def test_looking_again_is_not_a_move() -> None:
    memory = Memory("Go.", 5)
    memory.see(KITCHEN, ("go east", "look"), 0)
    memory.do("go east")
    memory.see(HALL, ("go west", "look"), 1)
    memory.do("look")
    again = memory.see(HALL, ("go west", "look", "take coin"), 2)
    assert (again.back, again.done_here, again.fresh) == ("go west", ("look",), ("take coin",))


def test_a_move_that_cannot_be_undone_has_no_way_back() -> None:
    memory = Memory("Go.", 5)
    memory.see(KITCHEN, ("enter portal",), 0)
    memory.do("enter portal")
    assert memory.see(HALL, ("look",), 1).back == ""


def test_commands_are_remembered_once_each_in_order() -> None:
    memory = Memory("Go.", 5)
    memory.see(KITCHEN, ("look", "wait"), 0)
    for command in ("wait", "look", "wait"):
        memory.do(command)
    situation = memory.see("Time passes.", ("look", "wait"), 3)
    assert (situation.done_here, situation.last) == (("wait", "look"), "wait")


def test_a_long_reply_to_a_command_that_acts_is_not_noted() -> None:
    memory = Memory("Cook.", 5)
    memory.see(KITCHEN, ("take book",), 0)
    memory.do("take book")
    assert memory.see(RECIPE, ("look",), 1).note == ""
