"""What the stages of a cycle are given: the parts of a run that never change, and the state between cycles.

A run's parts with a choice are protocols: what the server has of the world (`Public`, `States`), and what is reported
of a version (`Report`). `fedoel.server.public` has one of each for a server with public games and one for a server that
has prompts only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from ...codecs.codec import Codec
from ...codecs.context import TeacherContext
from ...codecs.encoder import Parameters
from ...protocol.config import RunConfig
from ...protocol.errors import FedoelError
from ...protocol.experience import Aggregate, ExperienceVector, Vector, VectorSpec
from ...protocol.play import Trajectory, Turn
from ...protocol.records.summary import CycleRecord, Floors, Measures, Results
from ...protocol.situation import Situation
from ..events import Advance, EventLog
from ..gate import Evidence, Gate
from ..learner import Adapter, Learner
from ..red_lines import RedLines
from ..run_plan import RunPlan
from ..safeguards import RunSafeguards
from .contender import Contender, Rollout, Version
from .mixture import Mixture
from .phases import Phases


@dataclass(frozen=True, slots=True)
class TrainingTurns:
    """Public turns to distil one context on.

    Parameters
    ----------
    visited
        Turns whose log-probabilities are not the teacher's.
    led
        Turns with the teacher's log-probabilities.
    """

    visited: Sequence[Turn]
    led: Sequence[Turn]


class States(Protocol):
    """Public turns of one version in one cycle: a context is computed, bounded and distilled on them."""

    @property
    def version(self) -> Version:
        """The version."""

    @property
    def cycle(self) -> int:
        """The cycle."""

    def under(self, exchange: int, contexts: Sequence[TeacherContext]) -> list[Turn]:
        """Return turns with the log-probabilities of the policy that plays an exchange.

        Parameters
        ----------
        contexts
            The contexts that the exchanges up to this one were played under.
        """

    def without_context(self) -> list[Turn]:
        """Return the turns of the first exchange, which are those of the bare policy."""

    def baseline(self, exchange: int, contexts: Sequence[TeacherContext]) -> Vector | None:
        """Mean return-to-go by family and step, shape ``(families, horizon)``; None if devices estimate it."""

    def reference(self, exchange: int, contexts: Sequence[TeacherContext]) -> ExperienceVector:
        """Return what the server learned itself; raises `FedoelError` where it has no rewards."""

    def scale(self, aggregate: Aggregate, turns: Sequence[Turn]) -> float:
        """How many times as many turns an aggregate comes from as these are."""

    def training(self, contexts: Mixture) -> list[TrainingTurns]:
        """Return the turns to distil each context on."""


class Public(Protocol):
    """What the server has of the world."""

    @property
    def digest(self) -> str:
        """Digest of its prompts, if that is all it has; otherwise empty."""

    def prepare(self) -> None:
        """Do what can be done while the model is being loaded."""

    def uniform(self) -> list[Turn]:
        """Return turns of uniform play, for the warm start."""

    def for_parameters(self) -> list[Turn]:
        """Return turns of uniform play, for a codec's parameters."""

    def situations(self) -> Sequence[Situation]:
        """Return public situations with a choice, the same ones in every cycle."""

    def unlisted(self) -> Sequence[Situation]:
        """Return public situations that list no command: they ask for free text, and nothing is learned on them."""

    def sample(self, number: int) -> Sequence[Situation]:
        """Return so many of the others at most, the same ones in every cycle, without the work that all would cost."""

    def states(self, run: Run, version: Version, cycle: int) -> States:
        """Return the turns of a version in a cycle."""


class Report(Protocol):
    """What is reported of a version. Nothing that decides anything may see it."""

    @property
    def episodes(self) -> int:
        """How many episodes a version plays for it."""

    @property
    def teacher_episodes(self) -> int:
        """How many episodes a teacher plays for it."""

    def floors(self, advance: Advance) -> Floors:
        """Return what play without any learning is worth."""

    def measures(self, contender: Contender, evidence: Evidence | None, advance: Advance) -> Measures:
        """Measure a version, but for its learner's probes; `evidence` is what the gate has seen of it, if anything."""

    def teacher(self, contender: Contender, evidence: Evidence, advance: Advance) -> Results:
        """Measure a teacher."""

    def example(self, contender: Contender) -> Trajectory:
        """Play one game, the same one for every version; raises `FedoelError` where there is none (no `episodes`)."""


@dataclass(frozen=True, slots=True)
class World:
    """What a run is made of, depending on what the server has of the world.

    Parameters
    ----------
    red_lines
        What the families of its games declare that no candidate may make likelier.
    """

    plan: RunPlan
    public: Public
    gate: Gate
    report: Report
    red_lines: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Run:
    """What every stage is given.

    Parameters
    ----------
    secure
        Whether the server sees sums over the cohort only.
    parameters
        Public parameters of the codec, by name: see `fedoel.codecs.codec.HasParameters`.
    red_lines
        What no candidate may make likelier; None if neither operator nor families name anything.
    """

    config: RunConfig
    plan: RunPlan
    codec: Codec
    learner: Learner
    public: Public
    gate: Gate
    report: Report
    safeguards: RunSafeguards
    log: EventLog
    cache: Path
    engine: str = ""
    secure: bool = False
    parameters: Parameters = field(default_factory=dict)
    red_lines: RedLines | None = None

    @property
    def folder(self) -> Path:
        """Where the run's results are."""
        return Path(self.config.out)

    @property
    def phases(self) -> Phases:
        """Outcomes of stages on disk."""
        return Phases(self.folder, self.log)

    @property
    def exchanges(self) -> range:
        """Numbers of a cycle's exchanges."""
        return range(1, self.config.strategy.exchanges + 1)

    def spec(self, version: str) -> VectorSpec:
        """Return the vector that is asked of devices about a policy version."""
        return self.plan.vector_spec(self.config, self.codec.encoder, version)

    def contender(self, adapter: Adapter, contexts: Mixture | None = None) -> Contender:
        """Return a policy to be measured: an adapter, alone or as teacher with contexts."""
        policy = self.learner.policy(adapter, measured=True)
        if contexts is None:
            return Contender(adapter, (policy,))
        teachers = tuple(self.codec.teacher(policy, context) for context in contexts.contexts)
        return Contender(adapter, teachers, contexts, self.codec)


@dataclass(frozen=True, slots=True)
class State:
    """The state of a run after a cycle.

    Parameters
    ----------
    evidence
        What the gate has seen of the version.
    latest
        Record of the cycle; None before the first.
    rollout
        How far the version has got; None if it goes to the whole fleet.
    """

    version: Version
    evidence: Evidence
    latest: CycleRecord | None = None
    rollout: Rollout | None = None

    @property
    def record(self) -> CycleRecord:
        """Record of the cycle; raises `FedoelError` before the first has ended."""
        if self.latest is None:
            raise FedoelError("no cycle has ended yet")
        return self.latest
