"""A training as a job that another process can build again, so that several processes compute its gradients.

A process that a part of a step is sent to reads the job from a file once, and keeps it for the steps that follow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from ...policies.policy import LogProbs
from ...policies.routed import ApplyContext
from ...policies.tokens import TokenizedSituation
from ...policies.torch.model import TorchModel, load_model
from ...policies.torch.policy import decoding_of
from ...policies.torch.prefix_cache import Kept
from ...protocol.config import RunConfig
from ...protocol.play import Turn
from ...protocol.versions import Adapter
from ..learner import Workers
from .anchor import Anchor, Passage, anchored
from .free_text import Imitation
from .losses import forward_kl
from .opcd import Views, commands_loss, divergence_of, towards, with_retention
from .parts import Gradient, Gradients, Part, PartLoss, gradient, gradients_here, put_in_training, weights_in_training
from .sampled_answers import SampledAnswers
from .training_states import TrainingStates

Share = tuple[NDArray[np.float32], Part]
FILE = "job.pt"


@dataclass(frozen=True)
class Job:
    """A training, without the model.

    Parameters
    ----------
    start
        Adapter that the student starts from.
    turns
        Public states to train on. Without targets, they say themselves what to imitate.
    bottoms
        What the frozen layers computed of the states; None where answers are written.
    passages
        The anchor's, if there is one.
    targets, score_offsets, apply_context, seed
        As in `fedoel.server.learner.DistillationTask`.
    """

    config: RunConfig
    cache: Path
    start: Adapter
    turns: Sequence[Turn]
    seed: int
    bottoms: Kept | None
    passages: Sequence[Sequence[Passage]] | None = None
    targets: Sequence[LogProbs] | None = None
    score_offsets: Sequence[LogProbs] | None = None
    apply_context: Sequence[ApplyContext] = ()

    def built(self, model: TorchModel) -> tuple[Sequence[TokenizedSituation], PartLoss]:
        """Return the tokenised states, and the loss of every part."""
        rows, loss = self._loss(model)
        anchor = None if self.passages is None else Anchor(model, "", self.passages)
        return rows, anchored(loss, anchor, self.seed)

    def _loss(self, model: TorchModel) -> tuple[Sequence[TokenizedSituation], PartLoss]:
        distil, decoding = self.config.distil, decoding_of(self.config.policy)
        if self.bottoms is not None:
            states = TrainingStates(model, [turn.situation for turn in self.turns], self.bottoms)
            return states.rows, commands_loss(states, self._objective())
        if self.targets is None:
            imitation = Imitation(model, self.turns, self.seed)
            return imitation.rows, imitation.loss_of
        sampled = SampledAnswers(
            model, self.start, self.turns, self.apply_context, decoding, self.seed,
            None if distil.on_policy else self.targets, distil.examples,
        )  # fmt: skip
        return sampled.rows, sampled.loss_of

    def _objective(self) -> Callable[[Views], Any]:
        distil, targets = self.config.distil, self.targets
        if targets is None:
            imitated = towards([turn.log_probs for turn in self.turns], forward_kl)
            return lambda views: imitated
        divergence = divergence_of(distil.divergence, distil.beta)
        return lambda views: with_retention(targets, self.score_offsets, distil.retention, views, divergence)


@contextmanager
def gradients_of(job: Job, model: TorchModel, loss: PartLoss, workers: Workers | None) -> Iterator[Gradients]:
    """Return what computes the gradients of a job's parts, in this process or in several."""
    if workers is None or workers.processes == 1:
        yield gradients_here(model, loss)
        return
    with TemporaryDirectory(prefix="fedoel-job-") as folder:
        path = Path(folder) / FILE
        torch.save(job, path)
        compute, shared = workers.map, _SharedJob(path, model, loss)

        def gradients(parts: Sequence[Part]) -> list[Gradient]:
            weights = weights_in_training(model)
            return compute(shared, [(weights, part) for part in parts])

        yield gradients


@dataclass(frozen=True, eq=False)
class _SharedJob:
    """Computes the gradient of a part; another process reads the job from its file when it gets this object."""

    path: Path
    model: TorchModel
    loss: PartLoss

    def __call__(self, share: Share) -> Gradient:
        weights, part = share
        put_in_training(self.model, weights)
        return gradient(self.model, self.loss, part)

    def __reduce__(self) -> tuple[Any, ...]:
        return _read, (self.path,)


@lru_cache(maxsize=1)
def _read(path: Path) -> _SharedJob:
    job: Job = torch.load(path, weights_only=False)  # the process that made this one has just written it
    model = load_model(job.config.policy, job.cache)
    return _SharedJob(path, model, job.built(model)[1])
