"""A device's part in a trial: it plays its next games with the current version and with what is tried.

The games are the first that it plays for experience in the next cycle, with the same random streams. What it played
with the version that then is the current one counts there and is not played again, while the node's process lives; a
node that was restarted plays it once more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from time import perf_counter
from typing import cast

import numpy as np
from flwr.app import ConfigRecord, RecordDict

from ..codecs.encoder import load_encoder, with_parameters
from ..games.player import play_episodes
from ..policies.abilities import speaker
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.errors import StoreError, VectorError
from ..protocol.experience import ExperienceVector
from ..protocol.messages import PlayRequest
from ..protocol.play import GameId, Trajectory, turns_of
from ..protocol.trials import TrialTerms, answer_of
from .runtime import Runtime
from .store import TrajectoryStore
from .trajectory_bytes import trajectory_from_bytes, trajectory_to_bytes

STATE = "trial"  # prefix of the names of records in the node's state


@dataclass(frozen=True, slots=True)
class Played:
    """Trajectories, and the numbers of their rows in the device's store, if it has one.

    `seconds` is how long it took to play them; 0 if they had been played before.
    """

    trajectories: Sequence[Trajectory]
    rows: Sequence[int]
    seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class TrialGames:
    """Plays a device's games of a trial, and keeps what was played in the node's state for the next cycle.

    Parameters
    ----------
    cycle
        The cycle whose experience the games are for.
    """

    config: RunConfig
    runtime: Runtime
    state: RecordDict
    store: TrajectoryStore | None
    cycle: int

    def play(self, policy: Policy, games: Sequence[GameId], streams: Sequence[int], keep: bool = True) -> Played:
        """Play games with a policy, unless it has been done; `keep` is for a version without a context."""
        if keep and len(kept := self.kept(policy.version).trajectories) >= len(games):
            return Played(kept[: len(games)], ())
        began = perf_counter()
        trajectories = play_episodes(policy, games, streams, self.runtime.cache(self.config))
        seconds = perf_counter() - began
        rows = self.store.add(trajectories) if self.store else []
        if keep:
            data = [trajectory_to_bytes(trajectory) for trajectory in trajectories]
            self.state[f"{STATE}-{policy.version}"] = ConfigRecord({"cycle": self.cycle, "data": data, "rows": rows})
        return Played(trajectories, rows, seconds)

    def kept(self, version: str) -> Played:
        """Return what a version has played already."""
        record = self.state.get(f"{STATE}-{version}")
        if not isinstance(record, ConfigRecord) or record.get("cycle") != self.cycle:
            return Played((), ())
        try:
            data = [trajectory_from_bytes(part) for part in cast(list[bytes], record["data"])]
        except StoreError:
            return Played((), ())
        return Played(data, cast(list[int], record["rows"]))

    def forget_older(self) -> None:
        """Delete what was played for earlier cycles."""
        for name in [name for name in self.state if name.startswith(f"{STATE}-")]:
            if cast(ConfigRecord, self.state[name]).get("cycle") != self.cycle:
                del self.state[name]


def trial_of(
    games: TrialGames, request: PlayRequest, next_games: Sequence[GameId], streams: Sequence[int]
) -> ExperienceVector:
    """Play a trial and return the answer.

    Parameters
    ----------
    next_games, streams
        The device's games of the next cycle, and the seed of each episode's random stream.

    Raises
    ------
    VectorError
        If the request is not the trial that the run's configuration describes.
    """
    config, terms = games.config, TrialTerms.of(request.spec)
    encoder = with_parameters(load_encoder(config.codec.name), request.parameters)
    if replace(TrialTerms.of_run(config, terms.candidate), detailed=terms.detailed) != terms:
        asks = "asks for health" if config.trial.health else "does not ask for health"
        raise VectorError(
            f"this run's trials have {config.trial.games} games, clipped to {config.trial.clip:g}, and it {asks}"
        )
    if request.context is not None and request.context.shape != (encoder.dimension,):
        raise VectorError(f"a context of {config.codec.name!r} has {encoder.dimension} numbers")
    if (request.context is None) is not bool(request.candidate) or bool(terms.candidate) is not bool(request.candidate):
        raise VectorError("a trial is of a context or of a candidate that has a name")
    games.forget_older()
    tried, seeds = next_games[: terms.games], streams[: terms.games]

    def policy_of(version: PlayRequest) -> Policy:
        # What is played counts as experience, and a policy that writes samples the alternatives of its answers, which
        # encoding needs, under a context only: here under one that changes nothing.
        policy, nothing = games.runtime.policy(config, version), np.zeros(encoder.dimension, np.float32)
        return policy if speaker(policy) is None else encoder.apply_context(policy, nothing)

    current = policy_of(replace(request, context=None, candidate={}))
    before = games.play(current, tried, seeds)
    if request.context is not None:
        under = encoder.apply_context(games.runtime.policy(config, replace(request, candidate={})), request.context)
        after = games.play(under, tried, seeds, keep=False)
    else:
        spec = replace(request.spec, policy_version=terms.candidate)
        candidate = replace(request, spec=spec, adapter=request.candidate, candidate={})
        after = games.play(policy_of(candidate), tried, seeds)
    fallen_back = games.runtime.success(games.state).fell_back_from(request.spec.policy_version)
    health = games.runtime.health(games.state, request, pace_of(before, after)) if terms.health else None
    played = before.trajectories, after.trajectories
    return answer_of(request.spec, *played, fallen_back, health, config.games.refusal)


def pace_of(*parts: Played) -> float | None:
    """Return the seconds per turn of what was played just now; None if nothing was."""
    played = [part for part in parts if part.seconds]
    turns = sum(len(turns_of(part.trajectories)) for part in played)
    return sum(part.seconds for part in played) / turns if turns else None
