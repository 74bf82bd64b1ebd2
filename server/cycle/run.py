"""The parts of a run that never change: configuration, games, codec, learner, gate, and where results are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ...codecs.codec import Codec
from ...protocol.config import RunConfig
from ...protocol.experience import VectorSpec
from ..events import EventLog
from ..game_plan import GameId, GamePlan
from ..gate import Gate
from ..learner import Adapter, Learner
from ..safeguards import RunSafeguards
from .contender import Contender
from .mixture import Mixture
from .phases import Phases
from .public_games import PublicGames


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage is given.

    Parameters
    ----------
    secure
        Whether the server sees sums over the cohort only.
    """

    config: RunConfig
    plan: GamePlan
    codec: Codec
    learner: Learner
    gate: Gate
    safeguards: RunSafeguards
    log: EventLog
    cache: Path
    engine: str = ""
    secure: bool = False

    @property
    def folder(self) -> Path:
        """Where the run's results are."""
        return Path(self.config.out)

    @property
    def phases(self) -> Phases:
        """Outcomes of stages on disk."""
        return Phases(self.folder, self.log)

    @property
    def public(self) -> PublicGames:
        """The public games."""
        return PublicGames(self.plan, self.cache)

    @property
    def exchanges(self) -> range:
        """Numbers of a cycle's exchanges."""
        return range(1, self.config.strategy.exchanges + 1)

    @property
    def teacher_games(self) -> Sequence[GameId]:
        """Held-out games that a teacher is measured on."""
        return self.plan.held_out[: self.config.games.held_out_teacher or None]

    def spec(self, version: str) -> VectorSpec:
        """Return the vector that is asked of devices about a policy version."""
        return self.plan.vector_spec(self.config, self.codec.encoder, version)

    def contender(self, adapter: Adapter, contexts: Mixture | None = None) -> Contender:
        """Return a policy to be measured: an adapter, alone or as teacher with contexts."""
        policy = self.learner.policy(adapter, measured=True)
        if contexts is None:
            return Contender(adapter, (policy,))
        return Contender(adapter, tuple(self.codec.teacher(policy, context) for context in contexts.contexts), contexts)
