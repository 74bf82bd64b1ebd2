"""A policy in 60 lines: log-linear in hashed features of a command: its verb, and how it relates to the situation.

fedoel simulate --set policy.backend=examples.bag_of_words:BagOfWords
"""

import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from fedoel.games.player import Advance
from fedoel.policies.policy import LogProbs, Policy
from fedoel.protocol.config import PolicyConfig, RunConfig
from fedoel.protocol.experience import Vector
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Situation
from fedoel.protocol.versions import policy_version

CELLS = 128
Adapter = Mapping[str, Vector]


def features(situation: Situation) -> Vector:
    """Feature vector of every admissible command, shape ``(commands, CELLS)``."""
    phi, goal = np.zeros((len(situation.admissible), CELLS), np.float32), situation.goal.strip(".").split()
    for row, command in zip(phi, situation.admissible, strict=True):
        verb, *rest = command.split()
        known = (any(word in goal for word in rest), command in situation.done_here, command == situation.back)
        for fact in ((verb,), (verb, *known)):
            row[zlib.crc32(repr(fact).encode()) % CELLS] += 1
    return phi


@dataclass(frozen=True, eq=False)
class WordPolicy:
    """One version of the policy."""

    version: str
    weights: Vector
    phi: Callable[[Situation], Vector] = features
    abilities: ClassVar[frozenset[str]] = frozenset()

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0] * len(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        raw = [(self.phi(situation) @ self.weights).astype(np.float64) for situation in situations]
        return [(r - r.max() - np.log(np.exp(r - r.max()).sum())).astype(np.float32) for r in raw]


class WordLearner:
    """The server half: uniform play at first; distillation fits the weights to the teacher's log-probabilities."""

    base, cells, phi = f"bag of words {CELLS}", CELLS, staticmethod(features)

    def load(self) -> None: ...
    def forget(self) -> None: ...
    def describe(self, folder: Path) -> None: ...
    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        return {}

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        return WordPolicy(policy_version(self.base, adapter), adapter["weights"], self.phi)

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        return {"weights": np.zeros(self.cells, np.float32)}

    def distil(self, adapter: Adapter, task: Any, advance: Advance) -> Any:
        from fedoel.server.distillation.log_linear import fit  # devices do not load the server's code
        from fedoel.server.learner import Distilled

        phi = [self.phi(turn.situation) for turn in task.turns]
        return Distilled({"weights": fit(phi, task.targets, adapter["weights"])}, {})


class BagOfWords:
    """The backend: what `policy.backend` names."""

    abilities: frozenset[str] = frozenset()

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        return WordPolicy(version, adapter["weights"])

    def learner(self, config: RunConfig, cache: Path) -> WordLearner:
        return WordLearner()
