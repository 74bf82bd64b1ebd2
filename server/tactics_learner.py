"""The learner for the log-linear policy without a language model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import numpy as np

from ..codecs.context import mean_divergence
from ..codecs.tactics.coordinates import DIMENSION, VOCABULARY, cells
from ..codecs.tactics.policy import TacticsPolicy
from ..policies.policy import Policy
from ..policies.routed import call_grouped, with_contexts
from ..protocol.play import Turn
from ..protocol.versions import policy_version
from .events import Advance
from .learner import Adapter, DistillationTask, Distilled

UNIFORM: Adapter = MappingProxyType({"weights": np.zeros(DIMENSION, dtype=np.float32)})


class TacticsLearner:
    """Learns weights of tactics; implements `Learner`.

    Parameters
    ----------
    adds_up
        Whether contexts are weights of tactics too. Such a context is added to the weights; any other is distilled.
    """

    base = VOCABULARY

    def __init__(self, adds_up: bool = True) -> None:
        self._adds_up = adds_up

    def load(self) -> None:
        """Do nothing: there is no base model."""

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return the log-linear policy with the adapter's weights; without an adapter, the uniform policy."""
        return TacticsPolicy.from_adapter(adapter or UNIFORM, policy_version(self.base, adapter))

    def forget(self) -> None:
        """Do nothing: nothing is cached."""

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Start from uniform play."""
        return UNIFORM

    def distil(self, adapter: Adapter, task: DistillationTask, advance: Advance) -> Distilled:
        """Add the context to the weights, which is exact, or fit the weights to the teacher's answers."""
        if self._adds_up:
            return Distilled({"weights": adapter["weights"] + task.context.weights}, {"without_context": 0.0})
        from .distillation.log_linear import fit

        one_hot = np.eye(DIMENSION, dtype=np.float32)
        phi = [one_hot[cells(turn.situation)] for turn in task.turns]
        weights = {"weights": fit(phi, task.targets, adapter["weights"])}
        student, states = self.policy(weights), [turn.situation for turn in task.turns]
        with_context = call_grouped(
            with_contexts(student, task.apply_context), states, lambda policy, part: policy.score(part)
        )
        answers = {"without_context": student.score(states), "with_context": with_context}
        views = {name: mean_divergence(log_probs, task.targets) for name, log_probs in answers.items()}
        return Distilled(weights, views)

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Return nothing: there is no language model to probe."""
        return {}

    def describe(self, folder: Path) -> None:
        """Write nothing: the manifest names the vocabulary."""
