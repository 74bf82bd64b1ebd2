"""The learner that trains a language model's adapter."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np

from ..games.player import Advance
from ..policies.policy import Policy, Speaker
from ..policies.routed import call_grouped
from ..protocol.config import RunConfig
from ..protocol.host.files import write_whole
from ..protocol.play import Turn
from ..protocol.versions import policy_version
from .learner import Adapter, Consolidated, Consolidation


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
        return str(self._model().name)

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return the model with this adapter.

        Games on which every version is measured share their scenes. Those to learn from start without any after
        `forget`, so that what is learned does not depend, in its last bits, on what was played before.
        """
        from ..policies.torch.policy import TorchPolicy, speaking

        scenes = self._measured_scenes if measured else self._learned_scenes
        return speaking(TorchPolicy(self._model(), adapter, scenes), self._config.policy, scored=not measured)

    def forget(self) -> None:
        """Drop the scenes and rows of games to learn from."""
        self.__dict__.pop("_learned_scenes", None)

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Train fresh LoRA layers towards uniform play, or read the result of the same training from the cache."""
        from .distillation.opcd import Schedule

        path = self._cache / "warm-starts" / f"{self._warm_key(turns)}.npz"
        if path.exists():
            with np.load(path, allow_pickle=False) as stored:
                return rounded({name: stored[name] for name in stored.files})
        settings = self._config.warm_start
        schedule = Schedule(settings.steps, settings.batch, settings.learning_rate, anchor=settings.anchor)
        adapter = self._imitate(turns, schedule, advance)
        buffer = io.BytesIO()
        np.savez(buffer, **adapter)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())
        return adapter

    def distil(self, adapter: Adapter, task: Consolidation, advance: Advance) -> Consolidated:
        """Train the adapter towards the teacher's answers on rehearsal turns."""
        from .distillation.opcd import Retained, Schedule, Views, divergence_of, retaining, towards

        settings, views = self._config.distil, Views()
        schedule = Schedule(
            settings.steps, settings.batch, settings.learning_rate, settings.gradient_norm, settings.anchor
        )
        if self._free:
            return self._distil_text(adapter, task, schedule, advance)
        loss = divergence_of(settings.divergence, settings.beta)
        objective, retained = retaining(task.targets, task.tilts, settings.retention, views, loss), None
        if task.tilts is None:
            states = [turn.situation for turn in task.turns]
            retained = Retained(self._retention(task, views.context), states, towards(task.targets, loss))
        made = self._train(adapter, task.turns, objective, schedule, task.seed, advance, retained)
        return Consolidated(made, views.end(settings.batch * self._last_steps))

    @property
    def _last_steps(self) -> int:
        """Steps at the end of distillation in which both views of the student are taken."""
        return max(1, self._config.distil.steps // 4)

    def _retention(self, task: Consolidation, seen: list[float]) -> Any:
        from .distillation.retention import Retention

        settings = self._config.distil
        return Retention(task.under, settings.retention, settings.steps - self._last_steps, seen)

    def _distil_text(self, adapter: Adapter, task: Consolidation, schedule: Any, advance: Advance) -> Consolidated:
        """Distil what the student writes, or, off-policy, what the teacher has written."""
        from ..policies.torch.policy import decoding_of
        from .distillation.free_text import FreeText
        from .distillation.losses import token_loss
        from .distillation.opcd import Views

        model, states = self._model(), [turn.situation for turn in task.turns]
        streams = [np.random.default_rng([task.seed, 4, place]) for place in range(len(states))]
        written = None
        if not self._config.distil.on_policy:
            asked = list(zip(states, streams, strict=True))
            answers = call_grouped(task.teachers, asked, lambda teacher, own: cast(Speaker, teacher).respond(own))
            written = [answer.tokens for answer in answers]
        views, last = Views(), self._last_steps
        text = FreeText(
            model, states, task.teachers, decoding_of(self._config.policy), token_loss(self._config.distil), task.seed,
            written, self._retention(task, views.context), seen=views.without,
        )  # fmt: skip
        made = self._optimise(adapter, text, schedule, task.seed, advance)
        covered = {
            f"{name}_mass": float(np.mean([getattr(coverage, name) for coverage in text.coverage[-last:]]))
            for name in ("student", "teacher")
        }
        return Consolidated(made, {**views.end(last), **covered})

    def _imitate(self, turns: Sequence[Turn], schedule: Any, advance: Advance) -> Adapter:
        """Train fresh LoRA layers on the commands that turns are about."""
        from .distillation.opcd import forward_kl, towards

        if not self._free:
            objective = towards([turn.log_probs for turn in turns], forward_kl)
            return self._train({}, turns, objective, schedule, 0, advance)
        from .distillation.free_text import Imitation

        return self._optimise({}, Imitation(self._model(), turns, 0), schedule, 0, advance)

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Read a general text and, if it is to, answer instructions, with the adapter and without."""
        measured = self._measure(adapter)
        return {**measured, **{f"base_{name}": value for name, value in self._base_measures.items()}}

    def _measure(self, adapter: Adapter) -> dict[str, float]:
        from .probes.instructions import instructions_followed, load_instructions
        from .probes.perplexity import perplexity

        measured = {"perplexity": perplexity(self._model(), adapter)}
        if self._config.games.instructions:
            measured["instructions"] = instructions_followed(self._model(), adapter, load_instructions())
        return measured

    @cached_property
    def _anchor(self) -> Any:
        from .distillation.anchor import Anchor

        return Anchor.prepare(self._model())

    @cached_property
    def _base_measures(self) -> Mapping[str, float]:
        return self._measure({})

    def describe(self, folder: Path) -> None:
        """Write PEFT's own configuration, so that plain peft can load the folder."""
        self._model().base.model.peft_config["default"].save_pretrained(str(folder))

    @cached_property
    def _learned_scenes(self) -> Any:
        return self._model().new_prefix_cache(keep_bottoms=True)

    @cached_property
    def _measured_scenes(self) -> Any:
        return self._model().new_prefix_cache()

    def _model(self) -> Any:
        from ..policies.torch.model import load_model

        return load_model(self._config.policy, self._cache)

    def _train(
        self,
        adapter: Adapter,
        turns: Sequence[Turn],
        objective: Any,
        schedule: Any,
        seed: int,
        advance: Advance,
        retained: Any = None,
    ) -> Adapter:
        """Fit the adapter to an objective over the commands of turns."""
        from .distillation.opcd import train
        from .distillation.rehearsal import Rehearsal

        rehearsal = Rehearsal.prepare(self._model(), [turn.situation for turn in turns], self._learned_scenes)
        return self._fit(
            adapter, schedule, lambda anchor: train(rehearsal, objective, schedule, seed, advance, anchor, retained)
        )

    def _optimise(self, adapter: Adapter, task: Any, schedule: Any, seed: int, advance: Advance) -> Adapter:
        """Fit the adapter to a task over free text."""
        from .distillation.opcd import optimise

        model = self._model()
        return self._fit(
            adapter, schedule, lambda anchor: optimise(model, task.rows, task.step, schedule, seed, advance, anchor)
        )

    def _fit(self, adapter: Adapter, schedule: Any, steps: Callable[[Any], object]) -> Adapter:
        """Start from an adapter, go through the steps, and return what came of it; nothing that was played is kept."""
        anchor, model = self._anchor if schedule.anchor else None, self._model()
        model.load(adapter)
        steps(anchor)
        self.forget()
        return rounded(model.adapter())

    @property
    def _free(self) -> bool:
        return self._config.policy.decoding == "free"

    def _warm_key(self, turns: Sequence[Turn]) -> str:
        """Hash of all that decides the warm start: base and precision, prompt, LoRA shape, schedule and states.

        Threads are of that, too: they decide in which order sums are taken, and play carries last bits far.
        """
        import torch

        from ..protocol.prompts import render

        style = self._model().style
        policy, precision, threads = self._config.policy, self._model().base.precision, torch.get_num_threads()
        settings = [asdict(self._config.warm_start), policy.lora_rank, policy.lora_layers, precision, threads]
        if self._config.warm_start.anchor:
            settings.append(self._anchor.name)
        digest = hashlib.sha256(policy_version(self.base, {}).encode())
        digest.update(json.dumps(settings).encode())
        for turn in turns:
            prompt = render(turn.situation, style)
            digest.update(repr((prompt, turn.situation.admissible)).encode())
        return digest.hexdigest()[:24]


def rounded(adapter: Adapter) -> Adapter:
    """Round trained weights to float16, as they travel: the server measures and judges what devices will play."""
    return {name: array.astype(np.float16) for name, array in adapter.items()}
