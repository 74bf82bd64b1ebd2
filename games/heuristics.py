"""Heuristic baseline players. They choose from the same input as a model: a `Situation`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from numpy.random import Generator

from ..protocol.situation import INFORMING, Situation
from . import orchard
from .grid import frozen_lake, sokoban
from .tidy import engine as tidy
from .tidy.asking import next_answer

Player = Callable[[Situation, Generator], str]

_APPLIANCES = {"fry": "stove", "roast": "oven", "grill": "BBQ"}
_COOKED = {"fry": "fried", "roast": "roasted", "grill": "grilled"}
_RECIPE = re.compile(r"Ingredients:\s*(?P<foods>.+?)\s*Directions:\s*(?P<steps>.+)", re.DOTALL)


def uniform(situation: Situation, rng: Generator) -> str:
    """Choose uniformly among the admissible commands."""
    return _choice(situation.admissible, rng)


def seek(situation: Situation, rng: Generator) -> str:
    """Take the object that the goal names and no other; until it is in reach, explore."""
    goal = f" {situation.goal.lower().rstrip('.')} "
    named = [command for command in _commands(situation, "take ") if f" {_object_of(command).lower()} " in goal]
    return named[0] if named else explore(situation, rng)


def explore(situation: Situation, rng: Generator) -> str:
    """Open closed doors and containers, then leave by an exit not yet tried, the way back last."""
    closed = [command for command in _commands(situation, "unlock ", "open ") if command not in situation.done_here]
    exits = _commands(situation, "go ")
    untried = [command for command in exits if command not in situation.done_here]
    onward = [command for command in untried if command != situation.back]
    harmless = [command for command in situation.admissible if command.startswith(INFORMING)]
    for choice in (closed, onward, untried, exits, harmless, situation.admissible):
        if choice:
            return _choice(choice, rng)
    return ""


def cook(situation: Situation, rng: Generator) -> str:
    """Read the cookbook, take its ingredients, follow its directions, prepare the meal and eat it.

    It never drops anything, so it cannot win games with ``drop=1``, where few things can be carried at once.
    """
    if "eat meal" in situation.admissible:
        return "eat meal"
    recipe = _RECIPE.search(situation.note)
    if recipe is None:
        return "examine cookbook" if "examine cookbook" in situation.admissible else explore(situation, rng)
    foods = [line.strip() for line in recipe["foods"].splitlines()]
    missing = [food for food in foods if food not in situation.carried]
    if missing:
        wanted = [command for command in _commands(situation, "take ") if _object_of(command) in missing]
    else:
        wanted = _directions(situation, recipe["steps"])
    return wanted[0] if wanted else explore(situation, rng)


def tidy_up(situation: Situation, rng: Generator) -> str:
    """Take what does not lie where it belongs, and carry it there; until that is in sight, explore."""
    if situation.open:
        return next_answer(situation.place_text, situation.admissible)
    return tidy.next_command(situation.admissible) or explore(situation, rng)


def match_words(situation: Situation, rng: Generator) -> str:
    """Choose the command that shares most words with what is seen; chance decides between equals."""
    seen = set(re.findall(r"\w+", situation.place_text.lower()))
    shared = [len(seen & set(command.lower().split())) for command in situation.admissible]
    return _choice([c for c, number in zip(situation.admissible, shared, strict=True) if number == max(shared)], rng)


HEURISTICS: Mapping[str, Player] = MappingProxyType(
    {
        "coin-collector": seek,
        "treasure-hunter": seek,
        "cooking": cook,
        "frozen-lake": lambda now, rng: frozen_lake.next_move(now.place_text),
        "sokoban": lambda now, rng: sokoban.next_move(now.place_text),
        "tidy": tidy_up,
        "assistant": match_words,
        **dict.fromkeys(orchard.LANDS, lambda now, rng: orchard.next_command(now.goal, now.admissible)),
    }
)


def _directions(situation: Situation, steps: str) -> list[str]:
    """Return a command for the first remaining step of the recipe, or for a precondition of it; empty if none."""
    for step in steps.splitlines():
        verb, _, food = step.strip().partition(" the ")
        if verb in _APPLIANCES and not _is_cooked(situation, verb, food):
            return [command for command in situation.admissible if command == f"cook {food} with {_APPLIANCES[verb]}"]
        cut = f"{verb} {food} with knife"
        if cut in situation.admissible:  # no longer admissible once the food is cut
            return [cut]
    knife = [command for command in _commands(situation, "take ") if _object_of(command) == "knife"]
    if _needs_knife(situation, steps) and knife:
        return knife
    return [command for command in situation.admissible if command == "prepare meal"]


def _is_cooked(situation: Situation, verb: str, food: str) -> bool:
    description = f"{situation.place_text} {situation.reply}"
    return f"cook {food} with {_APPLIANCES[verb]}" in situation.done or f"{_COOKED[verb]} {food}" in description


def _needs_knife(situation: Situation, steps: str) -> bool:
    """Return whether some food still has to be cut, as far as can be seen, and the knife was not taken yet."""
    participles = {"slice": "sliced", "chop": "chopped", "dice": "diced"}
    taken = any(command.startswith("take knife") for command in situation.done)
    directions = (step.strip().partition(" the ") for step in steps.splitlines())
    return not taken and any(
        verb in participles and f"{participles[verb]} " not in situation.place_text for verb, _, _ in directions
    )


def _commands(situation: Situation, *prefixes: str) -> list[str]:
    return [command for command in situation.admissible if command.startswith(prefixes)]


def _object_of(command: str) -> str:
    return command.removeprefix("take ").partition(" from ")[0]


def _choice(commands: Sequence[str], rng: Generator) -> str:
    return commands[int(rng.integers(len(commands)))] if commands else ""
