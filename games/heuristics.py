"""Scripted baseline players: they see what a model sees, a `Situation`, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType

from numpy.random import Generator

from ..protocol.situation import INFORMING, Situation
from .frozen_lake import solve_lake
from .orchard import LANDS, pick_fruit
from .sokoban import solve_store

Player = Callable[[Situation, Generator], str]

_TOOLS = {"fry": "stove", "roast": "oven", "grill": "BBQ"}
_COOKED = {"fry": "fried", "roast": "roasted", "grill": "grilled"}
_RECIPE = re.compile(r"Ingredients:\s*(?P<foods>.+?)\s*Directions:\s*(?P<steps>.+)", re.DOTALL)


def uniform(situation: Situation, rng: Generator) -> str:
    """Give any admissible command."""
    return _any(situation.admissible, rng)


def seek(situation: Situation, rng: Generator) -> str:
    """Take what the goal names, never anything else; failing that, look behind what is closed and in new places."""
    goal = f" {situation.goal.lower().rstrip('.')} "
    named = [command for command in _of(situation, "take ") if f" {_thing(command).lower()} " in goal]
    return named[0] if named else explore(situation, rng)


def explore(situation: Situation, rng: Generator) -> str:
    """Open what is closed, then leave by an exit not tried yet, the way back last."""
    closed = [command for command in _of(situation, "unlock ", "open ") if command not in situation.done_here]
    exits = _of(situation, "go ")
    untried = [command for command in exits if command not in situation.done_here]
    onward = [command for command in untried if command != situation.back]
    harmless = [command for command in situation.admissible if command.startswith(INFORMING)]
    for choice in (closed, onward, untried, exits, harmless, situation.admissible):
        if choice:
            return _any(choice, rng)
    return ""


def cook(situation: Situation, rng: Generator) -> str:
    """Read the cookbook, take what it names, do what it says, prepare the meal and eat it.

    It does not put anything down, so that ``drop=1`` (few things can be carried) is beyond it.
    """
    if "eat meal" in situation.admissible:
        return "eat meal"
    recipe = _RECIPE.search(situation.note)
    if recipe is None:
        return "examine cookbook" if "examine cookbook" in situation.admissible else explore(situation, rng)
    foods = [line.strip() for line in recipe["foods"].splitlines()]
    missing = [food for food in foods if food not in situation.carried]
    wanted = [command for command in _of(situation, "take ") if _thing(command) in missing] if missing else []
    wanted = wanted or ([] if missing else _directions(situation, recipe["steps"]))
    return wanted[0] if wanted else explore(situation, rng)


def cross(situation: Situation, rng: Generator) -> str:
    """Walk the shortest way over a frozen lake."""
    return solve_lake(situation.place_text)


def push(situation: Situation, rng: Generator) -> str:
    """Push the box by the shortest solution."""
    return solve_store(situation.place_text)


def pick(situation: Situation, rng: Generator) -> str:
    """Walk to a fruit that wins in this land, and eat it."""
    return pick_fruit(situation.goal, situation.admissible)


HEURISTICS: Mapping[str, Player] = MappingProxyType(
    {
        "coin-collector": seek, "treasure-hunter": seek, "cooking": cook, "frozen-lake": cross, "sokoban": push,
        **dict.fromkeys(LANDS, pick),
    }
)  # fmt: skip


def _directions(situation: Situation, steps: str) -> list[str]:
    """Return the first direction that is left: the command itself, or how to come to be able to give it."""
    for step in steps.splitlines():
        verb, _, food = step.strip().partition(" the ")
        if verb in _TOOLS and not _is_cooked(situation, verb, food):
            return [command for command in situation.admissible if command == f"cook {food} with {_TOOLS[verb]}"]
        cut = f"{verb} {food} with knife"
        if cut in situation.admissible:  # not offered any more for what is cut already
            return [cut]
    knife = [command for command in _of(situation, "take ") if _thing(command) == "knife"]
    if _needs_knife(situation, steps) and knife:
        return knife
    return [command for command in situation.admissible if command == "prepare meal"]


def _is_cooked(situation: Situation, verb: str, food: str) -> bool:
    seen = f"{situation.place_text} {situation.reply}"
    return f"cook {food} with {_TOOLS[verb]}" in situation.done or f"{_COOKED[verb]} {food}" in seen


def _needs_knife(situation: Situation, steps: str) -> bool:
    """Tell whether something is to be cut that was not seen cut already, and the knife was not taken yet."""
    words = {"slice": "sliced", "chop": "chopped", "dice": "diced"}
    taken = any(command.startswith("take knife") for command in situation.done)
    orders = (step.strip().partition(" the ") for step in steps.splitlines())
    return not taken and any(v in words and f"{words[v]} " not in situation.place_text for v, _, _ in orders)


def _of(situation: Situation, *prefixes: str) -> list[str]:
    return [command for command in situation.admissible if command.startswith(prefixes)]


def _thing(command: str) -> str:
    return command.removeprefix("take ").partition(" from ")[0]


def _any(commands: Sequence[str], rng: Generator) -> str:
    return commands[int(rng.integers(len(commands)))] if commands else ""
