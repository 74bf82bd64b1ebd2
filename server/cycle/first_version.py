"""Cycle 0: the warm start makes the first version, and the floors say what play without any learning is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy
from ...games.player import Advance
from ...protocol.play import Trajectory, turns_of
from ...protocol.records.json_codec import from_json, to_json
from ...protocol.records.summary import Floor, Floors
from ..evaluation import by_family, summarise
from ..floors import play_floors
from ..game_plan import GameId
from .phases import Form, Outcome
from .run import Run
from .trained import TRAINED, Trained

FLOORS = Form(lambda floors: Outcome(to_json(floors)), lambda outcome: from_json(Floors, dict(outcome.values)))


def warm_start(run: Run) -> Trained:
    """Train the first adapter on rollouts of uniform play."""
    return run.phases.run(
        0, "warm-start", TRAINED, lambda advance: _imitate_uniform_play(run, advance), run.config.warm_start.steps
    )


def floors(run: Run) -> Floors:
    """Play the measured games at random, by rules and by walkthrough."""
    return run.phases.run(0, "floors", FLOORS, lambda advance: _floors(run, advance), len(run.plan.measured))


def _imitate_uniform_play(run: Run, advance: Advance) -> Trained:
    uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, dtype=np.float32))
    played = run.public.play(uniform, run.plan.rehearsal, "uniform")
    adapter = run.learner.warm_start(turns_of(played), advance)
    return Trained(run.learner.policy(adapter).version, adapter)


def _floors(run: Run, advance: Advance) -> Floors:
    def play(games: Sequence[GameId]) -> dict[str, list[Trajectory]]:
        return play_floors(games, run.plan.streams("held-out", len(games)), run.cache, advance)

    played, transfer = play(run.plan.held_out), {name: play(games) for name, games in run.plan.transfer.items()}
    floors = {
        name: Floor(
            **asdict(summarise(trajectories)), families=by_family(trajectories),
            transfer={game: summarise(some[name]) for game, some in transfer.items()},
        )
        for name, trajectories in played.items()
    }  # fmt: skip
    return Floors(**floors)
