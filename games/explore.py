"""Exploration without rewards: a game is taken back to a state that it was in before, and played on from there.

It is Go-Explore (Ecoffet et al., *First return, then explore*, Nature 590, 2021) with commands that are given again in
place of saved states. Uniform play seldom gets behind a few right commands among many: it did not hold the meal once
in sixty episodes of cooking. Exploration gives the commands that it has given least, and returns more often to states
that have commands with rare words, such as `eat meal`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.random import Generator
from numpy.typing import NDArray

from ..protocol.play import GameSpec, Observation
from ..protocol.situation import Memory, Situation
from .families import build_game
from .game import Game, situation_of

COMMANDS = 300  # of one game, those included that lead back to a state
ONWARD = 8  # commands behind a state that was returned to

Key = tuple[object, ...]


def state_key(situation: Situation) -> Key:
    """Return what nearly equal situations have in common.

    They are equal in goal, place, texts, carried objects and commands, except for case, white space and the order of
    commands. The history (turn, last and earlier commands, way back) is not compared.
    """
    texts = (situation.goal, situation.place, situation.place_text, situation.reply, situation.note)
    collections = (situation.carried, situation.admissible)
    return *map(_normalised, texts), *(frozenset(map(_normalised, texts)) for texts in collections)


def explore(spec: GameSpec, seed: int, rng: Generator, cache: Path) -> list[Situation]:
    """Return the distinct states that exploration of a game visits, in random order, states with rare words first.

    The first is drawn with probability inversely proportional to the number of states whose commands have its rarest
    word, and so on without replacement. Of nearly equal states the one that took the fewest commands is kept. No
    more than `COMMANDS` and `ONWARD` commands are given; games that are not deterministic are allowed.
    """
    states = _States(rng)
    with closing(build_game(spec, cache)) as game:
        while states.given < COMMANDS:
            episode = _Episode(game, spec, seed)
            states.enter(episode)
            if (goal := states.draw(spec.max_turns)) is None:
                break
            states.given += episode.follow(goal.path)
            for _ in range(ONWARD):
                if (state := states.enter(episode)) is None:
                    break
                episode.give(states.next_command(state))
                states.given += 1
            states.enter(episode)
    return states.in_random_order()


@dataclass(slots=True)
class _State:
    situation: Situation
    path: tuple[str, ...]
    words: frozenset[str]
    untried: list[str]
    visits: int = 0


class _Episode:
    """An episode, with the commands that led to where it is."""

    def __init__(self, game: Game, spec: GameSpec, seed: int) -> None:
        self._game = game
        first = game.reset(seed)
        self._memory = Memory(first.goal, spec.max_turns)
        self.path: tuple[str, ...] = ()
        self.situation = self._see(first)

    def give(self, command: str) -> None:
        """Give one command; the situation is None if that ends the episode."""
        self._memory.do(command)
        self.path = (*self.path, command)
        self.situation = self._see(self._game.step(command))

    def follow(self, path: Sequence[str]) -> int:
        """Give commands until one is not possible, and return how many were given."""
        for given, command in enumerate(path):
            if self.situation is None or command not in self.situation.admissible:
                return given
            self.give(command)
        return len(path)

    def _see(self, now: Observation) -> Situation | None:
        return None if now.done else situation_of(self._memory, now)


@dataclass
class _States:
    rng: Generator
    given: int = 0
    _states: dict[Key, _State] = field(default_factory=dict)
    _with_word: Counter[str] = field(default_factory=Counter)
    _times: Counter[str] = field(default_factory=Counter)

    def enter(self, episode: _Episode) -> _State | None:
        """Return the state that an episode is in, which may be a new one; None if the episode is over."""
        if (situation := episode.situation) is None:
            return None
        key = state_key(situation)
        state = self._states.get(key)
        if state is None:
            words = frozenset(word for command in situation.admissible for word in command.split())
            state = self._states[key] = _State(situation, episode.path, words, list(situation.admissible))
            self._with_word.update(words)
        elif len(episode.path) < len(state.path):
            state.situation, state.path = situation, episode.path
        return state

    def draw(self, max_turns: int) -> _State | None:
        """Return a state with commands that were not tried in it and may lead to another state, if there is one."""
        states = [state for state in self._states.values() if state.untried and len(state.path) + 1 < max_turns]
        if not states:
            return None
        visits = np.array([state.visits for state in states])
        return states[int(self.rng.choice(len(states), p=_probabilities(self._novelty(states) / (1 + visits))))]

    def next_command(self, state: _State) -> str:
        """Return a command that was not tried in this state, if there is one, and preferably seldom in others."""
        commands = state.untried or list(state.situation.admissible)
        weights = np.array([1 / (1 + self._times[command]) for command in commands])
        command = commands[int(self.rng.choice(len(commands), p=_probabilities(weights)))]
        state.visits += 1
        self._times[command] += 1
        if state.untried:
            state.untried.remove(command)
        return command

    def in_random_order(self) -> list[Situation]:
        """Return all states; see `explore`."""
        if not (states := list(self._states.values())):
            return []
        order = self.rng.choice(len(states), size=len(states), replace=False, p=_probabilities(self._novelty(states)))
        return [states[index].situation for index in order]

    def _novelty(self, states: Sequence[_State]) -> NDArray[np.float64]:
        """Return one over the number of states that have a state's rarest word."""
        return np.array([1 / min((self._with_word[word] for word in state.words), default=1) for state in states])


def _probabilities(weights: NDArray[np.float64]) -> NDArray[np.float64]:
    normalised: NDArray[np.float64] = weights / weights.sum()
    return normalised


def _normalised(text: str) -> str:
    return " ".join(text.lower().split())
