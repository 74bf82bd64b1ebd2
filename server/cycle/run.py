"""What the stages of a cycle are given: the parts of a run that never change, and the state between cycles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ...codecs.codec import Codec
from ...codecs.encoder import Parameters
from ...protocol.config import RunConfig
from ...protocol.experience import VectorSpec
from ...protocol.records.summary import Summary
from ..events import EventLog
from ..game_plan import GameId, GamePlan
from ..gate import Evidence, Gate
from ..learner import Adapter, Learner
from ..safeguards import RunSafeguards
from .mixture import Mixture
from .phases import Phases
from .public_games import Contender, PublicGames


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage is given.

    Parameters
    ----------
    secure
        Whether the server sees sums over the cohort only.
    parameters
        Public parameters of the codec, by name: see `fedoel.codecs.codec.HasParameters`.
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
    parameters: Parameters = field(default_factory=dict)

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


@dataclass(frozen=True, slots=True)
class Version:
    """The policy version that devices play: its name and its adapter."""

    name: str
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class State:
    """The state of a run after a cycle.

    Parameters
    ----------
    evidence
        What the gate has seen of the version.
    summary
        The run so far, as `summary.json` says it.
    """

    version: Version
    evidence: Evidence
    summary: Summary
