"""The learner for language models: warm start, distillation and probes of a LoRA adapter, with torch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from ..policies.abilities import Rewarding
from ..policies.policy import Policy, Speaker
from ..policies.routed import call_grouped
from ..protocol.config import RunConfig
from ..protocol.host.files import write_whole
from ..protocol.play import Turn
from ..protocol.versions import policy_version
from .events import Advance
from .learner import Adapter, DistillationTask, Distilled


class TorchLearner:
    """Trains the LoRA adapter of a language model by on-policy context distillation; implements `Learner`."""

    def __init__(self, config: RunConfig, cache: Path) -> None:
        self._config, self._cache = config, cache
        self._texts: dict[str, Mapping[str, float]] = {}
        self._followed: dict[str, float] = {}

    def load(self) -> None:
        """Load the base model; a GGUF file is dequantised into the cache first."""
        self._model()

    @property
    def base(self) -> str:
        """Digest of the base model's file."""
        return str(self._model().name)

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        """Return the model with this adapter.

        There are two caches of scenes. Measured games are the same for every version and keep their scenes. The cache
        of training games is emptied by `forget`, so that training does not depend, in the last bits, on the games
        played before.
        """
        from ..policies.torch.policy import TorchPolicy, speaking

        scenes = self._measured_scenes if measured else self._training_scenes
        return speaking(TorchPolicy(self._model(), adapter, scenes), self._config.policy, scored=not measured)

    def forget(self) -> None:
        """Empty the cache of scenes and rows of training games."""
        self.__dict__.pop("_training_scenes", None)

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Train new LoRA layers towards uniform play, or load the result of the same training from the cache."""
        if not self._config.warm_start.steps:
            return rounded(self._model().fresh)
        from .distillation.optimise import Schedule

        path = self._cache / "warm-starts" / f"{self._warm_key(turns)}.npz"
        # A file that is not there, or is damaged, is made again.
        with suppress(OSError, ValueError, EOFError, BadZipFile), np.load(path, allow_pickle=False) as stored:
            return rounded({name: stored[name] for name in stored.files})
        settings = self._config.warm_start
        schedule = Schedule(settings.steps, settings.batch, settings.learning_rate, anchor=settings.anchor)
        if settings.kind == "prior":
            model, situations = self._model(), [turn.situation for turn in turns]
            model.load(model.fresh)
            turns = [replace(turn, log_probs=s) for turn, s in zip(turns, model.score(situations), strict=True)]
        adapter = self._imitate(turns, schedule, advance)
        buffer = io.BytesIO()
        np.savez(buffer, **adapter)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())
        return adapter

    def distil(self, adapter: Adapter, task: DistillationTask, advance: Advance) -> Distilled:
        """Distil the teacher into the adapter on public states."""
        from .distillation.opcd import Views, divergence_of, towards, with_retention
        from .distillation.optimise import Schedule

        settings, views = self._config.distil, Views()
        schedule = Schedule(
            settings.steps, settings.batch, settings.learning_rate, settings.gradient_norm, settings.anchor
        )
        if self._free:
            return self._distil_text(adapter, task, schedule, advance)
        divergence = divergence_of(settings.divergence, settings.beta)
        objective, retained = (
            with_retention(task.targets, task.score_offsets, settings.retention, views, divergence),
            None,
        )
        if task.score_offsets is None:
            retained = self._retention(task, views.context), towards(task.targets, divergence)
        student = self._train(adapter, task.turns, objective, schedule, task.seed, advance, retained)
        return Distilled(student, views.means(settings.batch * self._last_steps))

    @property
    def _last_steps(self) -> int:
        """Number of steps at the end of distillation over which the student's divergences are averaged."""
        return max(1, self._config.distil.steps // 4)

    def _retention(self, task: DistillationTask, divergences: list[float]) -> Any:
        from .distillation.retention import Retention

        settings = self._config.distil
        return Retention(task.apply_context, settings.retention, settings.steps - self._last_steps, divergences)

    def _distil_text(self, adapter: Adapter, task: DistillationTask, schedule: Any, advance: Advance) -> Distilled:
        """Distil on the student's own responses or, off-policy, on the teacher's."""
        from ..policies.torch.policy import decoding_of
        from .distillation.free_text import TextDistillation
        from .distillation.losses import token_loss
        from .distillation.opcd import Views
        from .distillation.sampled_answers import SampledAnswers

        model, states = self._model(), [turn.situation for turn in task.turns]
        views, last = Views(), self._last_steps
        if all(isinstance(teacher, Rewarding) for teacher in task.teachers):
            sampled = SampledAnswers(
                model, adapter, task.turns, cast(Sequence[Rewarding], task.teachers), decoding_of(self._config.policy),
                task.seed, None if self._config.distil.on_policy else task.targets, self._config.distil.examples,
                views.without,
            )  # fmt: skip
            student = self._optimise(adapter, sampled, schedule, task.seed, advance)
            return Distilled(student, views.means(last))
        streams = [np.random.default_rng([task.seed, 4, index]) for index in range(len(states))]
        responses = None
        if not self._config.distil.on_policy:
            prompts = list(zip(states, streams, strict=True))
            answers = call_grouped(task.teachers, prompts, lambda teacher, part: cast(Speaker, teacher).respond(part))
            responses = [answer.tokens for answer in answers]
        text = TextDistillation(
            model, states, task.teachers, decoding_of(self._config.policy), token_loss(self._config.distil), task.seed,
            responses, self._retention(task, views.context), divergences=views.without,
        )  # fmt: skip
        student = self._optimise(adapter, text, schedule, task.seed, advance)
        masses = {
            f"{name}_mass": float(np.mean([getattr(coverage, name) for coverage in text.coverage[-last:]]))
            for name in ("student", "teacher")
        }
        return Distilled(student, {**views.means(last), **masses})

    def _imitate(self, turns: Sequence[Turn], schedule: Any, advance: Advance) -> Adapter:
        """Train new LoRA layers towards the command distributions of turns."""
        from .distillation.losses import forward_kl
        from .distillation.opcd import towards

        if not self._free:
            objective = towards([turn.log_probs for turn in turns], forward_kl)
            return self._train({}, turns, objective, schedule, 0, advance)
        from .distillation.free_text import Imitation

        return self._optimise({}, Imitation(self._model(), turns, 0), schedule, 0, advance)

    def probe(self, adapter: Adapter) -> Mapping[str, float]:
        """Measure perplexity, drift and, if configured, instruction following, beside those of the base model."""
        base = {f"base_{name}": value for name, value in self._base_measures.items()}
        return {**self._measure(adapter), **base, "kl_to_base": self.drift(adapter)}

    def drift(self, adapter: Adapter) -> float:
        """Return the mean KL divergence of the adapter's version from the base model on a general text."""
        return self._on_text(adapter)["kl_to_base"]

    def _measure(self, adapter: Adapter) -> dict[str, float]:
        from .probes.instructions import instructions_followed, load_instructions

        measured = {"perplexity": self._on_text(adapter)["perplexity"]}
        if self._config.games.instructions or self._config.server.min_instructions:
            version = policy_version(self.base, adapter)
            if version not in self._followed:  # its gate asks, and then the report
                self._followed[version] = instructions_followed(self._model(), adapter, load_instructions())
            measured["instructions"] = self._followed[version]
        return measured

    @cached_property
    def _anchor(self) -> Any:
        from .distillation.anchor import Anchor

        return Anchor.prepare(self._model(), cache=self._cache / "anchors")

    @cached_property
    def _base_measures(self) -> Mapping[str, float]:
        return self._measure({})

    @cached_property
    def _base_text(self) -> Any:
        from .probes.states import read_text

        return read_text(self._model(), {})

    def _on_text(self, adapter: Adapter) -> Mapping[str, float]:
        """Measure a version on the general text, once: its gate asks, and then the report."""
        from .probes.drift import mean_kl
        from .probes.perplexity import perplexity
        from .probes.states import read_text

        version = policy_version(self.base, adapter)
        if version not in self._texts:
            base, head = self._base_text, self._model().base.head
            read = read_text(self._model(), adapter) if adapter else base
            kl = mean_kl(read.states_Td, base.states_Td, head) if adapter else 0.0
            self._texts[version] = {"perplexity": perplexity(read, head), "kl_to_base": kl}
        return self._texts[version]

    def describe(self, folder: Path) -> None:
        """Write PEFT's adapter configuration, so that peft can load the folder."""
        self._model().base.model.peft_config["default"].save_pretrained(str(folder))

    @cached_property
    def _training_scenes(self) -> Any:
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
        """Train the adapter on an objective over the listed commands of turns."""
        from .distillation.opcd import train
        from .distillation.training_states import TrainingStates

        states = TrainingStates.prepare(self._model(), [turn.situation for turn in turns], self._training_scenes)
        return self._fit(
            adapter, schedule, lambda anchor: train(states, objective, schedule, seed, advance, anchor, retained)
        )

    def _optimise(self, adapter: Adapter, task: Any, schedule: Any, seed: int, advance: Advance) -> Adapter:
        """Train the adapter on the loss of a task over free text."""
        from .distillation.optimise import optimise

        model = self._model()
        return self._fit(
            adapter, schedule, lambda anchor: optimise(model, task.rows, task.step, schedule, seed, advance, anchor)
        )

    def _fit(self, adapter: Adapter, schedule: Any, steps: Callable[[Any], object]) -> Adapter:
        """Load an adapter, run the training steps, empty the cache of training games, and return the new adapter."""
        anchor, model = self._anchor if schedule.anchor else None, self._model()
        model.load(adapter)
        steps(anchor)
        self.forget()
        return rounded(model.adapter())

    @property
    def _free(self) -> bool:
        return self._config.policy.decoding == "free"

    def _warm_key(self, turns: Sequence[Turn]) -> str:
        """Hash everything that determines the warm start: base, precision, prompt, LoRA shape, schedule and states.

        The number of threads is included: it determines the order of sums, and differences in the last bits change
        which commands are sampled later.
        """
        import torch

        from ..protocol.prompts import render

        style = self._model().style
        policy, precision, threads = self._config.policy, self._model().base.precision, torch.get_num_threads()
        shape = asdict(self._config.warm_start)
        kind = shape.pop("kind")
        settings = [shape, policy.lora_rank, policy.lora_layers, precision, threads]
        if kind != "uniform":
            settings.append(kind)
        if self._config.warm_start.anchor:
            settings.append(self._anchor.name)
        digest = hashlib.sha256(policy_version(self.base, {}).encode())
        digest.update(json.dumps(settings).encode())
        for turn in turns:
            prompt = render(turn.situation, style)
            digest.update(repr((prompt, turn.situation.admissible)).encode())
        return digest.hexdigest()[:24]


def rounded(adapter: Adapter) -> Adapter:
    """Round trained weights to float16, as they are sent, so that the server evaluates what devices will load."""
    return {name: array.astype(np.float16) for name, array in adapter.items()}
