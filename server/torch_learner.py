"""The learner for language models: warm start, distillation and probes of a LoRA adapter, with torch."""

from __future__ import annotations

import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, replace
from functools import cached_property
from pathlib import Path
from typing import Any, cast
from zipfile import BadZipFile

import numpy as np

from ..policies.abilities import Rewarding
from ..policies.policy import Policy, Speaker
from ..policies.routed import ApplyContext, call_grouped, with_contexts
from ..protocol.config import RunConfig
from ..protocol.host.files import write_whole
from ..protocol.play import Turn
from ..protocol.situation import Situation
from ..protocol.versions import policy_version
from .events import Advance
from .learner import Adapter, DistillationTask, Distilled, Workers


class TorchLearner:
    """Trains the LoRA adapter of a language model by on-policy context distillation; implements `Learner`."""

    def __init__(self, config: RunConfig, cache: Path) -> None:
        self._config, self._cache = config, cache
        self._workers: Workers | None = None
        self._texts: dict[str, Mapping[str, float]] = {}
        self._followed: dict[str, float] = {}

    def load(self) -> None:
        """Load the base model; a GGUF file is dequantised into the cache first."""
        self._model()

    @property
    def base(self) -> str:
        """Digest of the base model's file."""
        return str(self._model().name)

    def use(self, workers: Workers) -> None:
        """Divide the steps of training among processes."""
        self._workers = workers

    def turns(
        self, adapter: Adapter, apply_context: ApplyContext, situations: Sequence[Situation], seed: Sequence[int]
    ) -> list[Turn]:
        """Return public prompts as turns of a version under a context."""
        from .reading import Answerer, in_shares

        answerer = Answerer(self._config, self._cache, dict(adapter), apply_context, seed)
        return in_shares(situations, answerer, self._training_scenes.kept, self._workers)

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
        """Empty the cache of scenes and rows of training games, which policies from before share."""
        self._training_scenes.clear()

    def warm_start(self, turns: Sequence[Turn], advance: Advance) -> Adapter:
        """Train new LoRA layers towards uniform play, or load the result of the same training from the cache."""
        if not self._config.warm_start.steps:
            return rounded(self._model().fresh)
        path = self._cache / "warm-starts" / f"{self._warm_key(turns)}.npz"
        # A file that is not there, or is damaged, is made again.
        with suppress(OSError, ValueError, EOFError, BadZipFile), np.load(path, allow_pickle=False) as stored:
            return rounded({name: stored[name] for name in stored.files})
        if self._config.warm_start.kind == "prior":
            model, situations = self._model(), [turn.situation for turn in turns]
            model.load(model.fresh)
            turns = [replace(turn, log_probs=s) for turn, s in zip(turns, model.score(situations), strict=True)]
        from .distillation.optimise import Schedule

        settings = self._config.warm_start
        schedule = Schedule(settings.steps, settings.batch, settings.learning_rate, anchor=settings.anchor)
        adapter, _ = self._run(self._job({}, turns, 0, schedule), schedule, advance)
        buffer = io.BytesIO()
        np.savez(buffer, **adapter)  # type: ignore[arg-type]
        write_whole(path, buffer.getvalue())
        return adapter

    def distil(self, adapter: Adapter, task: DistillationTask, advance: Advance) -> Distilled:
        """Distil the teacher into the adapter on public states."""
        from .distillation.optimise import Schedule

        settings = self._config.distil
        schedule = Schedule(
            settings.steps, settings.batch, settings.learning_rate, settings.gradient_norm, settings.anchor
        )
        if self._free:
            teachers = with_contexts(self.policy(adapter), task.apply_context)
            if not all(isinstance(teacher, Rewarding) for teacher in teachers):
                return self._distil_text(adapter, task, teachers, schedule, advance)
        elif task.score_offsets is None:
            return self._distil_behind_contexts(adapter, task, schedule, advance)
        job = replace(
            self._job(adapter, task.turns, task.seed, schedule), targets=task.targets,
            score_offsets=task.score_offsets, apply_context=task.apply_context,
        )  # fmt: skip
        student, history = self._run(job, schedule, advance)
        return Distilled(student, history.means(self._last_steps))

    @property
    def _last_steps(self) -> int:
        """Number of steps at the end of distillation over which the student's divergences are averaged."""
        return max(1, self._config.distil.steps // 4)

    def _retention(self, task: DistillationTask) -> Any:
        from .distillation.retention import Retention

        settings = self._config.distil
        return Retention(task.apply_context, settings.retention, settings.steps - self._last_steps)

    def _distil_behind_contexts(
        self, adapter: Adapter, task: DistillationTask, schedule: Any, advance: Advance
    ) -> Distilled:
        """Distil contexts that act inside the model into commands, with the retention term of such contexts."""
        from .distillation.opcd import commands_loss, divergence_of, towards, with_retention

        divergence = divergence_of(self._config.distil.divergence, self._config.distil.beta)
        states = self._states(task.turns)
        loss = commands_loss(
            states, lambda views: with_retention(task.targets, None, 0.0, views, divergence),
            (self._retention(task), towards(task.targets, divergence)),
        )  # fmt: skip
        student, history = self._train_here(adapter, states.rows, loss, schedule, task.seed, advance)
        return Distilled(student, history.means(self._last_steps))

    def _distil_text(
        self, adapter: Adapter, task: DistillationTask, teachers: Sequence[Policy], schedule: Any, advance: Advance
    ) -> Distilled:
        """Distil on the student's own responses or, off-policy, on the teacher's."""
        from ..policies.torch.policy import decoding_of
        from .distillation.free_text import TextDistillation
        from .distillation.losses import token_loss

        model, states = self._model(), [turn.situation for turn in task.turns]
        responses = None
        if not self._config.distil.on_policy:
            streams = [np.random.default_rng([task.seed, 4, index]) for index in range(len(states))]
            prompts = list(zip(states, streams, strict=True))
            answers = call_grouped(teachers, prompts, lambda teacher, part: cast(Speaker, teacher).respond(part))
            responses = [answer.tokens for answer in answers]
        text = TextDistillation(
            model, states, teachers, decoding_of(self._config.policy), token_loss(self._config.distil), task.seed,
            responses, self._retention(task),
        )  # fmt: skip
        student, history = self._train_here(adapter, text.rows, text.loss_of, schedule, task.seed, advance)
        return Distilled(student, history.means(self._last_steps))

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

    def _job(self, adapter: Adapter, turns: Sequence[Turn], seed: int, schedule: Any) -> Any:
        """Describe a training so that several processes can compute its gradients."""
        from .distillation.job import Job

        return Job(
            self._config, self._cache, adapter, turns, seed, None if self._free else self._states(turns).bottoms,
            self._anchor.groups if schedule.anchor else None,
        )  # fmt: skip

    def _states(self, turns: Sequence[Turn]) -> Any:
        from .distillation.training_states import TrainingStates
        from .reading import Reader, in_shares

        model, scenes = self._model(), self._training_scenes
        situations = [turn.situation for turn in turns]
        rows = zip(model.tokenizer.encode(situations), situations, strict=True)
        unread = [situation for row, situation in rows if row.key not in scenes.kept.rows]
        in_shares(unread, Reader(self._config, self._cache), scenes.kept, self._workers)
        return TrainingStates.prepare(model, situations, scenes)

    def _run(self, job: Any, schedule: Any, advance: Advance) -> tuple[Adapter, Any]:
        """Run a job in this process, and in the workers if there are some."""
        from .distillation.job import gradients_of

        rows, loss = job.built(self._model())
        with gradients_of(job, self._model(), loss, self._workers) as gradients:
            return self._train(job.start, rows, gradients, schedule, job.seed, advance)

    def _train_here(
        self, adapter: Adapter, rows: Any, loss: Any, schedule: Any, seed: int, advance: Advance
    ) -> tuple[Adapter, Any]:
        """Train on a loss whose gradients this process computes."""
        from .distillation.anchor import anchored
        from .distillation.parts import gradients_here

        loss = anchored(loss, self._anchor if schedule.anchor else None, seed)
        return self._train(adapter, rows, gradients_here(self._model(), loss), schedule, seed, advance)

    def _train(
        self, adapter: Adapter, rows: Any, gradients: Any, schedule: Any, seed: int, advance: Advance
    ) -> tuple[Adapter, Any]:
        """Load an adapter, train it, empty the cache of training games, and return the new adapter and the history."""
        from .distillation.optimise import optimise

        model = self._model()
        model.load(adapter)
        history = optimise(model, rows, gradients, schedule, seed, advance)
        self.forget()
        return rounded(model.adapter()), history

    @property
    def _free(self) -> bool:
        return self._config.policy.decoding == "free"

    def _warm_key(self, turns: Sequence[Turn]) -> str:
        """Hash everything that determines the warm start: base, precision, prompt, LoRA shape, schedule and states.

        The numbers of threads and of a step's parts are included: they determine the order of sums, and differences in
        the last bits change which commands are sampled later.
        """
        import torch

        from ..protocol.prompts import render
        from .distillation.parts import PARTS

        style = self._model().style
        policy, precision, threads = self._config.policy, self._model().base.precision, torch.get_num_threads()
        shape = asdict(self._config.warm_start)
        kind = shape.pop("kind")
        settings = [shape, policy.lora_rank, policy.lora_layers, precision, threads, PARTS]
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
