"""Play whole episodes without a model: by a scripted player, or by the game's own walkthrough."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
from numpy.random import Generator

from ..protocol.errors import GameError
from ..protocol.play import GameSpec, Observation, Trajectory, Turn
from ..protocol.situation import Memory, Situation
from .families import build_game
from .game import Game
from .heuristics import Player

SCRIPTED = "scripted"
"""The policy version of trajectories that no model played."""


def play_scripted(spec: GameSpec, seed: int, player: Player, rng: Generator, cache: Path) -> Trajectory:
    """Play one episode by a scripted player; its log-probabilities are recorded as uniform."""
    game = build_game(spec, cache)
    try:
        return _episode(game, spec, seed, lambda situation: player(situation, rng))
    finally:
        game.close()


def play_walkthrough(spec: GameSpec, seed: int, cache: Path) -> Trajectory:
    """Play one episode as the game says that it is won; it is not if there are too few turns.

    Raises
    ------
    GameError
        If the family knows no walkthroughs.
    """
    game = build_game(spec, cache)
    try:
        game.reset(seed)
        commands = game.walkthrough()
        if commands is None:
            raise GameError(f"'{spec}' has no walkthrough")
        # TextWorld also writes down the opening of what is open already.
        left = iter(commands)
        return _episode(game, spec, seed, lambda now: next((c for c in left if c in now.admissible), now.admissible[0]))
    finally:
        game.close()


def _episode(game: Game, spec: GameSpec, seed: int, choose: Callable[[Situation], str]) -> Trajectory:
    now = game.reset(seed)
    memory = Memory(now.goal, spec.max_turns)
    turns: list[Turn] = []
    while not now.done:
        situation = memory.see(now.text, now.admissible, now.turn)
        command = choose(situation)
        memory.do(command)
        before, now = now, game.step(command)
        turns.append(_turn(situation, command, before, now))
    return Trajectory(spec, seed, SCRIPTED, tuple(turns), now.won, now.lost, now.score / max(now.max_score, 1.0))


def _turn(situation: Situation, command: str, before: Observation, after: Observation) -> Turn:
    count = len(situation.admissible)
    if command not in situation.admissible:
        raise GameError(f"a scripted player gave {command!r}, which is not one of {list(situation.admissible)}")
    uniform = np.full(count, -np.log(count), dtype=np.float32)
    reward = (after.score - before.score) / max(before.max_score, 1.0) - float(after.lost)
    return Turn(situation, uniform, situation.admissible.index(command), reward)
