"""Cycle 0: the warm start makes the first version, and the floors say what play without any learning is worth."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace

import numpy as np

from ...codecs.codec import HasParameters
from ...codecs.encoder import Parameters
from ...codecs.tactics.policy import uniform_policy
from ...games.families import unrenamed
from ...games.heuristics import HEURISTICS, uniform
from ...games.player import Advance
from ...games.prepare import prepare
from ...games.scripted import play_scripted, play_walkthrough
from ...protocol.play import Trajectory, Turn, turns_of
from ...protocol.records.summary import Floor, Floors
from ..evaluation import by_family, summarise
from ..game_plan import GameId
from .distil import TRAINED, Trained
from .phases import Form, Outcome, record_form
from .run import Run

RANDOM_REPEATS = 3
FLOORS = record_form(Floors)
PARAMETERS: Form[Parameters] = Form(lambda parameters: Outcome({}, parameters), lambda outcome: outcome.arrays)


def with_parameters(run: Run) -> Run:
    """Let the codec compute its public parameters, if it has any, from states of uniform play."""
    codec = run.codec
    if not isinstance(codec, HasParameters):
        return run

    def work(advance: Advance) -> Parameters:
        prompts = run.plan.prompts(0)
        prepare(prompts, run.cache)
        turns = [*_uniform_turns(run), *turns_of(run.public.play(uniform_policy(), prompts, "prompts"))]
        parameters = codec.parameters(run.learner.policy({}), turns)
        run.learner.forget()  # the warm start must not depend on what was cached here
        return parameters

    parameters = run.phases.run(0, "codec", PARAMETERS, work)
    return replace(run, codec=codec.with_parameters(parameters), parameters=parameters)


def warm_start(run: Run) -> Trained:
    """Train the first adapter on rollouts of uniform play."""

    def work(advance: Advance) -> Trained:
        adapter = run.learner.warm_start(_uniform_turns(run), advance)
        return Trained(run.learner.policy(adapter).version, adapter)

    return run.phases.run(0, "warm-start", TRAINED, work, run.config.warm_start.steps)


def _uniform_turns(run: Run) -> list[Turn]:
    return turns_of(run.public.play(uniform_policy(), run.plan.rehearsal, "uniform"))


def floors(run: Run) -> Floors:
    """Play the measured games at random, by rules and by walkthrough."""

    def work(advance: Advance) -> Floors:
        played = _play_floors(run, run.plan.held_out, advance)
        transfer = {name: _play_floors(run, games, advance) for name, games in run.plan.transfer.items()}
        return Floors(**{
            name: Floor(
                **asdict(summarise(trajectories)), families=by_family(trajectories),
                transfer={game: summarise(some[name]) for game, some in transfer.items()},
            )
            for name, trajectories in played.items()
        })  # fmt: skip

    return run.phases.run(0, "floors", FLOORS, work, len(run.plan.measured))


def _play_floors(run: Run, games: Sequence[GameId], advance: Advance) -> dict[str, list[Trajectory]]:
    """Play every game at random, several times to reduce the variance, by the family's heuristic, and by walkthrough.

    Renamed games are played with their original words, which changes nothing for these policies.
    """
    played: dict[str, list[Trajectory]] = {"random": [], "heuristic": [], "walkthrough": []}
    streams = run.plan.streams("held-out", len(games))
    for (spec, seed), stream in zip([(unrenamed(spec), seed) for spec, seed in games], streams, strict=True):
        for repeat in range(RANDOM_REPEATS):
            rng = np.random.default_rng([stream, repeat])
            played["random"].append(play_scripted(spec, seed, uniform, rng, run.cache))
        rng = np.random.default_rng(stream)
        played["heuristic"].append(play_scripted(spec, seed, HEURISTICS.get(spec.family, uniform), rng, run.cache))
        played["walkthrough"].append(play_walkthrough(spec, seed, run.cache))
        advance(1)
    return played
