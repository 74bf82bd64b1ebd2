"""Rollouts without a policy: episodes of a heuristic player, or of a game's walkthrough."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import numpy as np
from numpy.random import Generator

from ..protocol.errors import GameError
from ..protocol.play import GameSpec, Observation, Trajectory, Turn
from ..protocol.situation import Memory, Situation
from .families import build_game
from .game import Game, situation_of
from .heuristics import Player

SCRIPTED = "scripted"
"""The policy version of trajectories that no policy played."""


def play_scripted(spec: GameSpec, seed: int, player: Player, rng: Generator, cache: Path) -> Trajectory:
    """Play one episode with a heuristic player; its log-probabilities are recorded as uniform.

    Raises
    ------
    GameError
        If the player returns an inadmissible command.
    """
    with closing(build_game(spec, cache)) as game:
        return _episode(game, spec, seed, lambda situation: player(situation, rng))


def play_walkthrough(spec: GameSpec, seed: int, cache: Path) -> Trajectory:
    """Play one episode along its walkthrough; it is not won if the turn limit is shorter than the walkthrough.

    Raises
    ------
    GameError
        If the family has no walkthroughs.
    """
    with closing(build_game(spec, cache)) as game:
        game.reset(seed)
        commands = game.walkthrough()
        if commands is None:
            raise GameError(f"'{spec}' has no walkthrough")
        # TextWorld's walkthroughs contain redundant commands, such as opening an open door: skip them.
        rest = iter(commands)
        return _episode(game, spec, seed, lambda now: next((c for c in rest if c in now.admissible), now.admissible[0]))


def _episode(game: Game, spec: GameSpec, seed: int, choose: Callable[[Situation], str]) -> Trajectory:
    observation = game.reset(seed)
    memory = Memory(observation.goal, spec.max_turns)
    turns: list[Turn] = []
    while not observation.done:
        situation = situation_of(memory, observation)
        command = choose(situation)
        memory.do(command)
        before, observation = observation, game.step(command)
        turns.append(_turn(situation, command, before, observation))
    score = observation.score / max(observation.max_score, 1.0)
    return Trajectory(spec, seed, SCRIPTED, tuple(turns), observation.won, observation.lost, score)


def _turn(situation: Situation, command: str, before: Observation, after: Observation) -> Turn:
    count = len(situation.admissible)
    if command not in situation.admissible:
        raise GameError(f"a scripted player gave {command!r}, which is not one of {list(situation.admissible)}")
    uniform = np.full(count, -np.log(count), dtype=np.float32)
    reward = (after.score - before.score) / max(before.max_score, 1.0) - float(after.lost)
    return Turn(situation, uniform, situation.admissible.index(command), reward)
