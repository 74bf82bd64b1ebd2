"""What a run needs from whoever makes versions: a learner, what it is asked to fold in, and what comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..codecs.context import TeacherContext
from ..games.player import Advance
from ..policies.policy import LogProbs, Policy
from ..policies.routed import ApplyContext
from ..protocol.play import Turn

Adapter = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Consolidation:
    """What is to be folded into an adapter.

    Parameters
    ----------
    turns, targets
        Public states to train on, and what the teacher says in each.
    teachers
        For each state the policy before, with the context.
    under
        For each state what gives a policy the context.
    tilts
        What the context adds to each command's score, None where it does more than that.
    seed
        Picks the order of the states.
    """

    context: TeacherContext
    turns: Sequence[Turn]
    targets: Sequence[LogProbs]
    teachers: Sequence[Policy]
    under: Sequence[ApplyContext]
    tilts: Sequence[LogProbs] | None
    seed: int


@dataclass(frozen=True, slots=True)
class Consolidated:
    """The adapter that came of it, and how far the student is from its teacher without the context and with it."""

    adapter: Adapter
    views: Mapping[str, float]


class Learner(Protocol):
    """What a run needs from the model it improves."""

    def load(self) -> None:
        """Get ready: load what is heavy."""
        ...

    @property
    def base(self) -> str:
        """Digest of what adapters are put on."""
        ...

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return the player with this adapter; say whether for games on which every version is measured."""
        ...

    def forget(self) -> None:
        """Drop what was kept of games that were played to learn from them, before others are played."""
        ...

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Make the first version from turns of uniform play."""
        ...

    def distil(self, adapter: Adapter, task: Consolidation, advance: Advance) -> Consolidated:
        """Fold a context into the adapter: afterwards it plays without the context as the teacher does with it."""
        ...

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Measure what the adapter does outside of games, beside what the base model does."""
        ...

    def describe(self, folder: Path) -> None:
        """Write what a reader of the adapter's folder needs beside the weights."""
        ...
