"""The learner: the protocol by which a run makes versions, with the input and the result of a distillation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

from numpy.typing import NDArray

from ..codecs.context import TeacherContext
from ..policies.policy import LogProbs, Policy
from ..policies.routed import ApplyContext
from ..protocol.play import Turn
from ..protocol.situation import Situation
from .events import Advance

Adapter = Mapping[str, NDArray[Any]]
Share = TypeVar("Share")
Result = TypeVar("Result")
DRIFTED = "drifted from the base model"  # in the reason of a candidate that has moved too far
LOST = "lost general abilities"  # in the reason of a candidate that does less than the base model outside of games
UNFIT = "unfit answers to public prompts"  # in the reason of a candidate that writes too much, or too much in vain


@dataclass(frozen=True, slots=True)
class DistillationTask:
    """A distillation task.

    Parameters
    ----------
    context
        The context that the teacher has.
    turns
        Public states to train on.
    targets
        The teacher's log-probabilities of each state's commands.
    apply_context
        For each state, the function that gives a policy the context: the teacher is the policy at the start of the
        cycle with it.
    score_offsets
        What the context adds to the score of each command; None if the context acts in another way.
    seed
        Determines the order of the states.
    """

    context: TeacherContext
    turns: Sequence[Turn]
    targets: Sequence[LogProbs]
    apply_context: Sequence[ApplyContext]
    score_offsets: Sequence[LogProbs] | None
    seed: int


@dataclass(frozen=True, slots=True)
class Distilled:
    """The distilled adapter, and its mean divergence from the teacher, without the context and with it, in nats."""

    adapter: Adapter
    views: Mapping[str, float]


class Workers(Protocol):
    """Processes that compute shares of some work, this one among them."""

    @property
    def processes(self) -> int:
        """How many there are."""

    def map(self, function: Callable[[Share], Result], shares: Sequence[Share]) -> list[Result]:
        """Compute all shares, wherever there is room, and return the results in order."""


class Learner(Protocol):
    """Makes and distils versions of a policy."""

    def load(self) -> None:
        """Load the base model."""

    @property
    def base(self) -> str:
        """Digest of the base model."""

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return the policy with an adapter; `measured` is true for games on which every version is evaluated."""

    def forget(self) -> None:
        """Drop what is cached of the training games, before other games are played."""

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Make the first version from turns of uniform play."""

    def distil(self, adapter: Adapter, task: DistillationTask, advance: Advance) -> Distilled:
        """Distil the teacher into the adapter: the student then plays without the context as the teacher with it."""

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Measure general abilities with the adapter, and with the base model for comparison."""

    def describe(self, folder: Path) -> None:
        """Write the files that a reader of the adapter's folder needs in addition to the weights."""


@runtime_checkable
class Divided(Protocol):
    """A learner that can use several processes."""

    def use(self, workers: Workers) -> None:
        """Divide the work among processes; results do not depend on how many there are."""

    def turns(
        self, adapter: Adapter, apply_context: ApplyContext, situations: Sequence[Situation], seed: Sequence[int]
    ) -> list[Turn]:
        """Return public prompts as turns of a version under a context: see `fedoel.server.public.turns.turns_under`."""


@runtime_checkable
class Drifting(Protocol):
    """A learner that can say how far a version has moved from a base model: a run may bound that."""

    def drift(self, adapter: Adapter) -> float:
        """Return the mean KL divergence of the adapter's version from the base model on neutral text, nats a token."""
