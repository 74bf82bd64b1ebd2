"""The learner of the player without a language model, which only adds up tactics."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from ..codecs.context import mean_divergence
from ..codecs.tactics.coordinates import DIMENSION, VOCABULARY, cells
from ..codecs.tactics.policy import TacticsPolicy
from ..games.player import Advance
from ..policies.policy import Policy
from ..policies.routed import call_grouped, with_contexts
from ..protocol.play import Turn
from ..protocol.versions import policy_version
from .learner import Adapter, Consolidated, Consolidation


class TacticsLearner:
    """The baseline without a language model: contexts of the tactics codec are added up, others are distilled.

    Parameters
    ----------
    adds_up
        Whether contexts are weights of tactics.
    """

    base = VOCABULARY

    def __init__(self, adds_up: bool = True) -> None:
        self._adds_up = adds_up

    def load(self) -> None:
        """Have nothing to load."""

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return uniform play tilted by the adapter's weights."""
        return TacticsPolicy.from_adapter(adapter, policy_version(self.base, adapter))

    def forget(self) -> None:
        """Have kept nothing."""

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Start from uniform play."""
        return {"weights": np.zeros(DIMENSION, dtype=np.float32)}

    def distil(self, adapter: Adapter, task: Consolidation, advance: Advance) -> Consolidated:
        """Add the context to the weights: for this player that is exact. Others' contexts say what to play only."""
        if self._adds_up:
            return Consolidated({"weights": adapter["weights"] + task.context.weights}, {"without_context": 0.0})
        from .distillation.log_linear import fit

        one_hot = np.eye(DIMENSION, dtype=np.float32)
        phi = [one_hot[cells(turn.situation)] for turn in task.turns]
        made = {"weights": fit(phi, task.targets, adapter["weights"])}
        return Consolidated(made, self._views(made, task))

    def _views(self, adapter: Adapter, task: Consolidation) -> dict[str, float]:
        student, states = self.policy(adapter), [turn.situation for turn in task.turns]
        with_context = call_grouped(with_contexts(student, task.under), states, lambda policy, own: policy.score(own))
        answers = {"without_context": student.score(states), "with_context": with_context}
        return {name: mean_divergence(found, task.targets) for name, found in answers.items()}

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Have nothing outside of games."""
        return {}

    def describe(self, folder: Path) -> None:
        """Say nothing more: the manifest has the vocabulary's hash."""
