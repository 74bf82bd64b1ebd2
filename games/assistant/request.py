"""One instance: a home, what someone in it says, and the commands that the player chooses from.

The list of commands must not tell which of them is meant. So the commands are drawn first, in pairs that differ in one
slot (two rooms, two colours). All pairs of an instance share the same two rooms, colours and so on: every command has
a neighbour with the same intent and another slot, and others with another intent and the same slot. Then one of them is
meant, each with equal probability. Then a sentence that asks for it is drawn.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from .commands import Command, Language, SlotValue
from .templates import Value, say

SEEDS_OF_A_CLIENT = 10_000  # consecutive private seeds are one client's (fedoel.games.splits), who has one home
FIRST_PUBLIC_SEED = 1_000_000_000
FIRST_SECRET_SEED = 1_300_000_000  # of the private games of deployed devices
NUMBER_IN_A_HOME = {"area": 5, "name": 5, "item": 8, "device_class": 3}
PERCENTAGES = ("percentage", "position", "volume_level")  # have the values of "brightness"
SPREAD_OF_HABITS = 1.0  # standard deviation of the logarithm of a command's frequency, between homes


@dataclass(frozen=True, slots=True)
class Home:
    """What there is in a home, and what is often asked for there.

    Parameters
    ----------
    values
        The values of each slot: its rooms, its things, what it buys.
    habits
        Relative frequency of each of the language's commands, shape ``(len(language.commands),)``; sums to 1.
    """

    values: Mapping[str, Sequence[SlotValue]]
    habits: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Request:
    """One instance.

    Parameters
    ----------
    room
        The room in which the sentence is said.
    sentence
        What is said.
    commands
        The commands to choose from.
    meant
        The one that is meant.
    """

    room: str
    sentence: str
    commands: tuple[str, ...]
    meant: str


def number_of_home(seed: int) -> int:
    """Return the home of an instance: all private games of a client have one, and each public game has its own."""
    return seed if FIRST_PUBLIC_SEED <= seed < FIRST_SECRET_SEED else seed // SEEDS_OF_A_CLIENT


def draw_home(language: Language, seed: int) -> Home:
    """Draw the home of an instance."""
    rng = np.random.default_rng([number_of_home(seed), 1])
    values = {
        slot: [values[index] for index in rng.permutation(len(values))[: NUMBER_IN_A_HOME.get(slot)]]
        for slot, values in language.values.items()
    }
    frequencies = rng.lognormal(sigma=SPREAD_OF_HABITS, size=len(language.commands))
    return Home(values, frequencies / frequencies.sum())


def draw_request(language: Language, commands: int, split: str, seed: int) -> Request:
    """Draw an instance.

    Parameters
    ----------
    language
        What can be said.
    commands
        Number of commands to choose from.
    split
        Split of the sentence templates.
    seed
        Seed of the draw, of which the instance is a pure function.
    """
    home, rng = draw_home(language, seed), np.random.default_rng([seed, 2])
    pairs = {slot: _draw_pair(values, rng) for slot, values in home.values.items()}
    pairs |= dict.fromkeys(PERCENTAGES, pairs["brightness"])
    order = rng.choice(len(language.commands), size=len(language.commands), replace=False, p=home.habits)
    drawn = [choice for index in order for choice in _draw_choices(language.commands[index], pairs, rng)][:commands]
    choices = [drawn[index] for index in rng.permutation(commands)]
    meant, slots = choices[int(rng.integers(commands))]
    sentence = meant.sentences[split][int(rng.integers(len(meant.sentences[split])))]
    room = slots["area"] if sentence.is_local else pairs["area"][int(rng.integers(2))]
    wording = {value: _word(language, value, slots[value.slot], rng) for value in sorted(sentence.values)}
    return Request(
        room=str(room),
        sentence=say(sentence.template, wording, rng),
        commands=tuple(language.show(command, chosen) for command, chosen in choices),
        meant=language.show(meant, slots),
    )


def _draw_pair(values: Sequence[SlotValue], rng: Generator) -> tuple[SlotValue, SlotValue]:
    first, second = rng.choice(len(values), size=2, replace=False)
    return values[first], values[second]


def _draw_choices(
    command: Command, pairs: Mapping[str, tuple[SlotValue, SlotValue]], rng: Generator
) -> Iterator[tuple[Command, Mapping[str, SlotValue]]]:
    """Yield a command with two sets of slots that differ in one slot, or once if it has none."""
    slots = {slot: pairs[slot][int(rng.integers(2))] for slot in command.slots}
    yield command, slots
    if slots:
        slot = command.slots[int(rng.integers(len(slots)))]
        first, second = pairs[slot]
        yield command, {**slots, slot: second if slots[slot] == first else first}


def _word(language: Language, value: Value, chosen: SlotValue, rng: Generator) -> str:
    if isinstance(chosen, int):
        return str(chosen)
    return say(language.wordings[value.slot, chosen], {}, rng)
