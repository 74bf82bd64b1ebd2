"""Learners: where versions come from. One trains a language model's adapter, one only adds up tactics."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..client.player import Advance
from ..client.policy.policy import LogProbs, Policy
from ..client.policy.tactics_policy import TacticsPolicy
from ..client.runtime import BACKENDS
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.play import Turn
from ..protocol.tactics import DIMENSION, VOCABULARY
from ..protocol.versions import policy_version
from .codecs.context import Context
from .files import write_whole

Adapter = Mapping[str, NDArray[Any]]


@dataclass(frozen=True, slots=True)
class Consolidation:
    """What is to be folded into an adapter.

    Parameters
    ----------
    turns, targets
        Public states to train on, and what the teacher says in each.
    tilts
        What the context adds to each command's score, None where it does more than that.
    seed
        Picks the order of the states.
    """

    context: Context
    turns: Sequence[Turn]
    targets: Sequence[LogProbs]
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


class TacticsLearner:
    """The baseline without a language model: contexts are added up."""

    base = VOCABULARY

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
        """Add the context to the weights: for this player that is exact."""
        return Consolidated({"weights": adapter["weights"] + task.context.weights}, {"without_context": 0.0})

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Have nothing outside of games."""
        return {}

    def describe(self, folder: Path) -> None:
        """Say nothing more: the manifest has the vocabulary's hash."""


class TorchLearner:
    """A language model with LoRA layers, improved by on-policy context distillation."""

    def __init__(self, config: RunConfig, cache: Path) -> None:
        self._config, self._cache = config, cache

    def load(self) -> None:
        """Load the base model, dequantising it first if that was never done."""
        self._model()

    @property
    def base(self) -> str:
        """Digest of the base model's file."""
        return str(self._model().base.digest)

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return the model with this adapter.

        Games on which every version is measured share their scenes. Those to learn from start without any after
        `forget`, so that what is learned does not depend, in its last bits, on what was played before.
        """
        from ..client.policy.torch_policy import TorchPolicy

        return TorchPolicy(self._model(), adapter, self._measured_scenes if measured else self._learned_scenes)

    def forget(self) -> None:
        """Drop the scenes and rows of games to learn from."""
        self.__dict__.pop("_learned_scenes", None)

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Train fresh LoRA layers towards uniform play, or read the result of the same training from the cache."""
        from .distillation.opcd import Schedule, forward_kl, towards

        path = self._cache / "warm-starts" / f"{self._warm_key(turns)}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        settings = self._config.warm_start
        schedule = Schedule(settings.steps, settings.batch, settings.learning_rate, anchor=settings.anchor)
        objective = towards([turn.log_probs for turn in turns], forward_kl)
        adapter = self._train({}, turns, objective, schedule, 0, advance)
        buffer = io.BytesIO()
        np.savez(buffer, **adapter)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())
        return adapter

    def distil(self, adapter: Adapter, task: Consolidation, advance: Advance) -> Consolidated:
        """Train the adapter towards the teacher's answers on rehearsal turns."""
        from .distillation.opcd import Schedule, Views, retaining

        settings, views = self._config.distil, Views()
        schedule = Schedule(
            settings.steps, settings.batch, settings.learning_rate, settings.gradient_norm, settings.anchor
        )
        objective = retaining(task.targets, task.tilts, settings.retention, views)
        made = self._train(adapter, task.turns, objective, schedule, task.seed, advance)
        return Consolidated(made, views.end(states=settings.batch * max(1, settings.steps // 4)))

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Read a general text, with the adapter and without."""
        from .probes.perplexity import perplexity

        return {"perplexity": perplexity(self._model(), adapter), "base_perplexity": self._base_perplexity}

    @cached_property
    def _anchor(self) -> Any:
        from .distillation.anchor import Anchor

        return Anchor.prepare(self._model())

    @cached_property
    def _base_perplexity(self) -> float:
        from .probes.perplexity import perplexity

        return perplexity(self._model(), {})

    def describe(self, folder: Path) -> None:
        """Write PEFT's own configuration, so that plain peft can load the folder."""
        self._model().base.model.peft_config["default"].save_pretrained(str(folder))

    @cached_property
    def _learned_scenes(self) -> Any:
        return self._model().new_scenes(keeps_rows=True)

    @cached_property
    def _measured_scenes(self) -> Any:
        return self._model().new_scenes()

    def _model(self) -> Any:
        from ..client.policy.torch_policy import load_model

        return load_model(self._config.policy, self._cache)

    def _train(
        self, adapter: Adapter, turns: Sequence[Turn], objective: Any, schedule: Any, seed: int, advance: Advance
    ) -> Adapter:
        from .distillation.opcd import train
        from .distillation.rehearsal import Rehearsal

        model = self._model()
        rehearsal = Rehearsal.prepare(model, [turn.situation for turn in turns], self._learned_scenes)
        anchor = self._anchor if schedule.anchor else None
        model.load(adapter)
        train(rehearsal, objective, schedule, seed, advance, anchor)
        self.forget()
        return model.adapter()  # type: ignore[no-any-return]

    def _warm_key(self, turns: Sequence[Turn]) -> str:
        """Hash of all that decides the warm start: base and precision, prompt, LoRA shape, schedule and states."""
        from ..protocol.prompts import render

        policy, precision = self._config.policy, self._model().base.precision
        settings = [asdict(self._config.warm_start), policy.lora_rank, policy.lora_layers, precision]
        if self._config.warm_start.anchor:
            settings.append(self._anchor.name)
        digest = hashlib.sha256(policy_version(self.base, {}).encode())
        digest.update(json.dumps(settings).encode())
        for turn in turns:
            prompt = render(turn.situation)
            digest.update(repr((prompt, turn.situation.admissible)).encode())
        return digest.hexdigest()[:24]


def make_learner(config: RunConfig, cache: Path) -> Learner:
    """Return the learner for a run's policy backend.

    Raises
    ------
    ConfigError
        If the backend is unknown.
    ModelError
        If the base model is not there.
    """
    if config.policy.backend == "tactics":
        return TacticsLearner()
    if config.policy.backend in ("torch", "llama"):  # devices may play with llama.cpp; the server trains with torch
        from ..client.policy.model_files import find_model

        if find_model(config.policy.base).is_dir() and config.policy.backend == "llama":
            raise ConfigError("policy.backend 'llama' needs a GGUF file as policy.base: devices read no other")
        return TorchLearner(config, cache)
    raise ConfigError(f"unknown policy.backend {config.policy.backend!r}; known are {', '.join(BACKENDS)}")
