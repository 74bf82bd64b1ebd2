"""Reference policies on the held-out games: random play, a heuristic of the family, and the walkthrough."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..games.families import unrenamed
from ..games.heuristics import HEURISTICS, uniform
from ..games.player import Advance
from ..games.scripted import play_scripted, play_walkthrough
from ..protocol.play import GameSpec, Trajectory

Games = Sequence[tuple[GameSpec, int]]
RANDOM_REPEATS = 3


def play_floors(games: Games, streams: Sequence[int], cache: Path, advance: Advance) -> dict[str, list[Trajectory]]:
    """Play every game at random, several times to reduce the variance, by the family's heuristic, and by walkthrough.

    Renamed games are played with their original words, which changes nothing for these policies.
    """
    played: dict[str, list[Trajectory]] = {"random": [], "heuristic": [], "walkthrough": []}
    for (spec, seed), stream in zip([(unrenamed(spec), seed) for spec, seed in games], streams, strict=True):
        for repeat in range(RANDOM_REPEATS):
            rng = np.random.default_rng([stream, repeat])
            played["random"].append(play_scripted(spec, seed, uniform, rng, cache))
        rng = np.random.default_rng(stream)
        played["heuristic"].append(play_scripted(spec, seed, HEURISTICS.get(spec.family, uniform), rng, cache))
        played["walkthrough"].append(play_walkthrough(spec, seed, cache))
        advance(1)
    return played
