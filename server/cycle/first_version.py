"""Cycle 0: the warm start makes the first version, and the floors say what play without any learning is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np

from ...codecs.tactics.coordinates import DIMENSION
from ...codecs.tactics.policy import TacticsPolicy
from ...games.player import Advance
from ...protocol.play import Trajectory, turns_of
from ..evaluation import summarise
from ..floors import play_floors
from ..game_plan import GameId
from ..summary import Entry, stats_of
from .phases import Form, Outcome
from .run import Run
from .trained import TRAINED, Trained

FLOORS: Form[Entry] = Form(Outcome, lambda outcome: dict(outcome.values))


def warm_start(run: Run) -> Trained:
    """Train the first adapter on rollouts of uniform play."""
    return run.phases.run(
        0, "warm-start", TRAINED, lambda advance: _imitate_uniform_play(run, advance), run.config.warm_start.steps
    )


def floors(run: Run) -> Entry:
    """Play the measured games at random, by rules and by walkthrough."""
    return run.phases.run(0, "floors", FLOORS, lambda advance: _floors(run, advance), len(run.plan.measured))


def _imitate_uniform_play(run: Run, advance: Advance) -> Trained:
    uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, dtype=np.float32))
    played = run.public.play(uniform, run.plan.rehearsal, "uniform")
    adapter = run.learner.warm_start(turns_of(played), advance)
    return Trained(run.learner.policy(adapter).version, adapter)


def _floors(run: Run, advance: Advance) -> Entry:
    def play(games: Sequence[GameId]) -> dict[str, list[Trajectory]]:
        return play_floors(games, run.plan.streams("held-out", len(games)), run.cache, advance)

    played, transfer = play(run.plan.held_out), {name: play(games) for name, games in run.plan.transfer.items()}
    return {
        floor: {
            **stats_of(trajectories),
            "transfer": {name: asdict(summarise(some[floor])) for name, some in transfer.items()},
        }
        for floor, trajectories in played.items()
    }
