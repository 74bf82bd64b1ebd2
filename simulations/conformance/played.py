"""Turns for the checks of codecs and policies: uniform play of games in pure Python."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np

from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy
from ...games.player import play_episodes
from ...games.splits import Split, for_split, game_seed
from ...policies.policy import Policy
from ...protocol.play import GameSpec, Turn
from ...protocol.situation import Situation

SPEC = GameSpec.parse("frozen-lake size=4 turns=6")
GAMES = 12


def uniform() -> Policy:
    """Return the uniform policy over the admissible commands."""
    return TacticsPolicy("uniform", np.zeros(DIMENSION, np.float32))


@cache
def turns() -> tuple[Turn, ...]:
    """Return turns of uniform play."""
    spec = for_split(SPEC, Split.REHEARSAL)
    games = [(spec, game_seed(Split.REHEARSAL, index)) for index in range(GAMES)]
    played = play_episodes(uniform(), games, list(range(GAMES)), Path("nowhere"))
    return tuple(turn for trajectory in played for turn in trajectory.turns)


def situations() -> list[Situation]:
    """Return the situations of these turns."""
    return [turn.situation for turn in turns()]
