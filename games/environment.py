"""Game families from environments of your own: whatever has `reset` and `step` as in Gymnasium, and three functions.

Gymnasium itself is not needed. `environment_family` returns a `Family`, which is a plug-in like any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeAlias

import numpy as np

from ..protocol.errors import GameError
from .families import Family, Rule
from .game import Frame

Action: TypeAlias = Any
Info: TypeAlias = Mapping[str, Any]
GOAL = "Reach the goal."
SHOWN = 80  # characters of a value in an error
TRIES, LONGEST = 100, 100  # of a walkthrough: episodes played to find one, and its commands


class Environment(Protocol):
    """What an environment has to have; a method `close` is called where there is one."""

    def reset(self, *, seed: int) -> tuple[Any, Info]:
        """Start the instance of a seed: the same instance for the same seed in every process."""

    def step(self, action: Action) -> tuple[Any, Any, bool, bool, Info]:
        """Take an action; return observation, reward, terminated, truncated and info."""


class Step(NamedTuple):
    """The state of an episode: what `reset` or `step` returned, and the sum of the rewards so far."""

    observation: Any
    info: Info
    reward: float = 0.0
    terminated: bool = False
    truncated: bool = False
    total: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an episode stands: its score, which is 1 at most and when it is won, and whether it is won or lost."""

    score: float = 0.0
    won: bool = False
    lost: bool = False


def outcome_by_reward(step: Step) -> Outcome:
    """Won if the episode terminates with a positive reward, and lost if it terminates without."""
    won = step.terminated and step.reward > 0
    return Outcome(float(won), won, step.terminated and not won)


def environment_family(
    make: Callable[..., Environment],
    text: Callable[[Any, Info], str],
    commands: Callable[[Any, Info], Mapping[str, Action]],
    outcome: Callable[[Step], Outcome] = outcome_by_reward,
    *,
    goal: Callable[[Any, Info], str] = lambda observation, info: GOAL,
    solve: Callable[[Any], Iterator[Action]] | None = None,
    answer: Callable[[str, Any, Info], Action] | None = None,
    rules: Mapping[str, Rule] | None = None,
    red_lines: tuple[str, ...] = (),
) -> Family:
    """Return the family of an environment. Functions get the observation and the info of `reset` or `step`.

    Parameters
    ----------
    make
        Returns an environment; it gets the game's settings by keyword, those in `rules`.
    text
        What the player reads: any text. One that begins with ``-= Name =-`` describes a place.
    commands
        The actions that the player may take, by the command that takes them: words with single spaces between them.
    outcome
        How the episode stands.
    goal
        The task in one line.
    solve
        Yields actions that win. It gets an environment that was just reset, and each action is taken before it is
        asked for the next. Without it, an instance's walkthrough is the shortest of `TRIES` random episodes that
        wins, or the last of them if none does.
    answer
        Makes the game open: the action that a text means, which may be any text but an empty one, or None if it means
        none. The commands are then examples of answers, which prompts do not list.
    rules
        The settings of the family, by name.
    red_lines
        Harmful commands, as in `Family`.
    """
    functions = _Functions(text, commands, outcome, goal, solve, answer)
    return Family(
        rules or {},
        lambda family, settings, cache: EnvironmentEngine(partial(make, **settings), functions),
        red_lines=red_lines,
    )


@dataclass(frozen=True, slots=True)
class _Functions:
    text: Callable[[Any, Info], str]
    commands: Callable[[Any, Info], Mapping[str, Action]]
    outcome: Callable[[Step], Outcome]
    goal: Callable[[Any, Info], str]
    solve: Callable[[Any], Iterator[Action]] | None
    answer: Callable[[str, Any, Info], Action] | None


class EnvironmentEngine:
    """One environment, which is made when it is first needed."""

    def __init__(self, make: Callable[[], Environment], functions: _Functions) -> None:
        self._make, self._functions = make, functions
        self._environment: Environment | None = None
        self._seed, self._goal = 0, ""
        self._actions: Mapping[str, Action] = {}
        self._step = Step(None, {})

    def start(self, seed: int) -> Frame:
        """Reset the environment with this seed."""
        self._environment = self._environment or self._make()
        self._seed, self._step = seed, Step(*self._environment.reset(seed=seed))
        self._goal = self._functions.goal(self._step.observation, self._step.info)
        return self._frame()

    def act(self, command: str) -> Frame:
        """Take the action of a command, or of an answer that means one."""
        environment, action = self._started(), self._actions.get(command)
        if action is None and self._functions.answer is not None:
            action = self._functions.answer(command, self._step.observation, self._step.info)
            if action is None:
                return replace(self._frame(), valid=False)
        self._step = _take(environment, self._step, action)
        return self._frame()

    def walkthrough(self) -> tuple[str, ...]:
        """Return the commands of the solution, or of random play that wins; another environment plays them."""
        self._started()
        environment = self._make()
        try:
            return self._solution(environment) if self._functions.solve else self._random_play(environment)
        finally:
            _close(environment)

    def close(self) -> None:
        """Close the environment, if it can be closed."""
        if self._environment is not None:
            _close(self._environment)
        self._environment = None

    def _started(self) -> Environment:
        if self._environment is None:
            raise GameError("reset the game before the first command")
        return self._environment

    def _frame(self) -> Frame:
        step, outcome = self._step, self._functions.outcome(self._step)
        self._actions = self._listed(step)
        if not isinstance(self._actions, Mapping):
            raise GameError(
                f"`commands` returns {type(self._actions).__name__}, and has to return the actions by their commands"
            )
        text = self._functions.text(step.observation, step.info)
        commands, over = tuple(self._actions), step.terminated or step.truncated
        is_open = self._functions.answer is not None and not over
        return Frame(text, self._goal, commands, outcome.score, 1.0, outcome.won, outcome.lost, is_open)

    def _listed(self, step: Step) -> Mapping[str, Action]:
        """Return the actions by their commands; none once the episode is over."""
        over = step.terminated or step.truncated
        return {} if over else self._functions.commands(step.observation, step.info)

    def _solution(self, environment: Environment) -> tuple[str, ...]:
        assert self._functions.solve is not None
        step, commands = Step(*environment.reset(seed=self._seed)), list[str]()
        for action in self._functions.solve(environment):
            listed = self._listed(step)
            command = next((command for command, other in listed.items() if np.array_equal(other, action)), None)
            if command is None:
                raise GameError(f"`solve` takes the action {action!r}, and the commands are {list(listed)}")
            commands.append(command)
            step = _take(environment, step, action)
            if step.terminated or step.truncated or len(commands) == LONGEST:
                break
        return tuple(commands)

    def _random_play(self, environment: Environment) -> tuple[str, ...]:
        """Return the commands of the shortest random episode that wins, or of the last one if none does."""
        rng, commands, shortest = np.random.default_rng(self._seed), list[str](), tuple[str, ...]()
        for _ in range(TRIES):
            step, commands = Step(*environment.reset(seed=self._seed)), []
            while (listed := self._listed(step)) and len(commands) < (len(shortest) - 1 if shortest else LONGEST):
                commands.append(list(listed)[int(rng.integers(len(listed)))])
                step = _take(environment, step, listed[commands[-1]])
                if self._functions.outcome(step).won:
                    shortest = tuple(commands)
                    break
        return shortest or tuple(commands)


def _take(environment: Environment, before: Step, action: Action) -> Step:
    taken = environment.step(action)
    try:
        observation, reward, terminated, truncated, info = taken
        gained = float(reward)
        if not math.isfinite(gained):
            raise ValueError(gained)
    except (TypeError, ValueError) as error:
        raise GameError(
            f"`step` of {type(environment).__name__} returns {shortened(taken)}, and has to return an observation, the "
            "reward as a finite number, terminated, truncated, and info"
        ) from error
    return Step(observation, info, gained, bool(terminated), bool(truncated), before.total + gained)


def _close(environment: Environment) -> None:
    if close := getattr(environment, "close", None):
        close()


def shortened(value: object) -> str:
    """Show a value in an error, as much of it as a line has room for."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}..."
