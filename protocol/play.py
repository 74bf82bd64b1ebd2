"""Frozen plain data of play: game specifications, observations, turns and trajectories."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .settings import shown
from .situation import Situation

Setting = int | str | bool
INVALID = -1
MAX_TURNS = 10_000
GAMES_PER_CLIENT = 10_000  # private games of a client that have seeds of their own
NUMBER = re.compile(r"-?[0-9]{1,18}")  # longer ones stay text, which no family takes for a number


@dataclass(frozen=True, slots=True)
class GameSpec:
    """A game by family, settings and turn limit; together with a seed it determines an instance.

    Parameters
    ----------
    family
        Name of a registered family, e.g. ``"coin-collector"``.
    settings
        Sorted ``(name, value)`` pairs that the family understands.
    max_turns
        Number of commands after which an episode is truncated.
    """

    family: str
    settings: tuple[tuple[str, Setting], ...]
    max_turns: int

    @classmethod
    def parse(cls, text: str) -> GameSpec:
        """Read ``"coin-collector level=102 turns=7"``.

        Raises
        ------
        ConfigError
            If a word is not ``name=value``, a name is given twice, or ``turns`` is missing or not positive.
        """
        family, *words = text.split()
        settings: dict[str, Setting] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not (name and equals and value):
                raise ConfigError(f"game {shown(text)}: {shown(word)} is not name=value")
            if name in settings:
                raise ConfigError(f"game {shown(text)}: {name} is given twice; write it once")
            settings[name] = int(value) if NUMBER.fullmatch(value) else value
        turns = settings.pop("turns", None)
        if not isinstance(turns, int) or not 1 <= turns <= MAX_TURNS:
            raise ConfigError(
                f"game {shown(text)}: say how long an episode may be, from 1 to {MAX_TURNS:,} turns, e.g. 'turns=10'"
            )
        return cls(family, tuple(sorted(settings.items())), turns)

    def __str__(self) -> str:
        return " ".join([self.family, *(f"{k}={v}" for k, v in self.settings), f"turns={self.max_turns}"])


GameId = tuple[GameSpec, int]
"""A game instance: its specification and its seed."""


@dataclass(frozen=True, slots=True)
class Observation:
    """What a game returns after a command. It contains no history; that is kept in the player's `Memory`.

    Parameters
    ----------
    text, goal
        Reply or room description, and the task in words.
    admissible
        The commands that the game accepts in this turn.
    score, max_score
        Current score, and the highest possible one.
    done, won, lost, truncated
        Whether the episode is over, and why; `truncated` by the turn limit, neither if no command is left.
    valid
        False if the last command was inadmissible, or not understood, and therefore not executed.
    turn
        Number of commands given so far, inadmissible ones included.
    open
        Whether any text may be answered; the admissible commands are then examples.
    """

    text: str
    goal: str
    admissible: tuple[str, ...]
    score: float
    max_score: float
    done: bool
    won: bool
    lost: bool
    truncated: bool
    valid: bool
    turn: int
    open: bool = False


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision of an episode.

    Parameters
    ----------
    situation
        What the player knew.
    log_probs
        Natural log-probabilities of the situation's choices under the policy that played, shape
        ``(len(situation.choices),)``: of the admissible commands, or of the answers that it sampled.
    action
        Index of the answer among the choices, or `INVALID` if the response contains none of them.
    reward
        Change of the score over the maximal score, minus one if this command lost the game.
    response
        What a policy that decodes freely generated.
    refused
        Whether the game did not take the answer.
    """

    situation: Situation
    log_probs: NDArray[np.float32]
    action: int
    reward: float
    response: str = ""
    refused: bool = False

    @property
    def scored(self) -> bool:
        """Whether the answer has a log-probability."""
        return self.action != INVALID

    @property
    def valid(self) -> bool:
        """Whether the game took the answer."""
        return self.scored and not self.refused

    @property
    def command(self) -> str:
        """The answer; empty if the response has none of the admissible commands."""
        return self.situation.choices[self.action] if self.scored else ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode of one policy version.

    Parameters
    ----------
    spec, seed
        The game instance.
    policy_version
        The version that played.
    turns
        All turns, in order.
    won, lost
        The outcome; neither if the episode ended otherwise.
    score
        Final score over the maximal score.
    prompt_tokens, response_tokens
        Number of tokens in all prompts and commands, and in all responses.
    """

    spec: GameSpec
    seed: int
    policy_version: str
    turns: tuple[Turn, ...]
    won: bool
    lost: bool
    score: float
    prompt_tokens: int = 0
    response_tokens: int = 0


def merit(trajectory: Trajectory, refusal: float = 0.0) -> float:
    """Return what a gate compares: the score, plus one for a win, minus one for a loss, minus the price of refusals.

    Parameters
    ----------
    refusal
        Price of an episode in which the game took no answer; one that took some costs a share of it.
    """
    price = refusal * fmean(turn.refused for turn in trajectory.turns) if refusal and trajectory.turns else 0.0
    return trajectory.score + float(trajectory.won) - float(trajectory.lost) - price


def turns_of(trajectories: Iterable[Trajectory]) -> list[Turn]:
    """Return the turns of all trajectories, concatenated."""
    return [turn for trajectory in trajectories for turn in trajectory.turns]


def specs_from_text(text: str) -> tuple[GameSpec, ...]:
    """Read a ``;``-separated list of games, the form of the run-config value ``games.families``."""
    return tuple(GameSpec.parse(part.strip()) for part in text.split(";") if part.strip())
