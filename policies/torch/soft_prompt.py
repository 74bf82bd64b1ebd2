"""A torch policy with a context in its prompt, as words or as a soft prompt, and the gradients of the latter.

A context stands behind the head of the prompt, beside the scene: it sees the head, and the moment and the commands
see it. Scenes do not, so that what is cached of scenes serves every context, and another costs its own tokens alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from threading import RLock

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.play import Turn
from ...protocol.situation import Situation
from ..policy import LogProbs
from ..spaces import SoftPrompt
from ..spans import Span, causal
from ..tokens import Row, cut
from .model import TorchModel
from .reading import Load, Reading, score
from .scenes import Pool, SceneCache
from .segments import Attended, KeyValues

GRADIENT_TOKENS = 640  # of one backward pass: about a gigabyte for a model of 135 million weights


class PromptedPolicy:
    """One policy version with a segment of its own between the head of the prompt and the moment.

    Parameters
    ----------
    load
        Puts the version's adapter in place.
    prompt_nd
        Embeddings of the segment's tokens, real ones or virtual ones.
    """

    abilities: frozenset[str] = frozenset()

    def __init__(
        self, model: TorchModel, load: Load, version: str, scenes: SceneCache, prompt_nd: torch.Tensor
    ) -> None:
        self._model, self._load, self._scenes = model, load, scenes
        self._version, self._lock = f"{version}+context", RLock()
        self._prompt_nd = prompt_nd
        self._kept: dict[int, KeyValues] = {}

    @property
    def version(self) -> str:
        return self._version

    @property
    def length(self) -> int:
        """Tokens of the segment."""
        return len(self._prompt_nd)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation, those of the segment included."""
        return [self._model.encoder.prompt_tokens(situation) + self.length for situation in situations]

    @property
    def model(self) -> TorchModel:
        return self._model

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return score(self, situations)

    @contextmanager
    def reading(self, rows: Sequence[Row]) -> Iterator[Reading]:
        """Begin to read some rows behind the segment."""
        model = self._model
        with self._lock:
            self._scenes.prepare([row.scene for row in rows], self._load())
            pool = self._scenes.pool(row.scene for row in rows)
            head, prompt = len(model.encoder.head), self._prompt(pool)
            yield Reading(model.trunk, model.trunk.whole, head, rows, pool, prompt, self.length)

    def _prompt(self, pool: Pool) -> dict[int, KeyValues]:
        """Keys and values of the segment in all layers; computed once, they depend on the head only."""
        if not self._kept:
            made: dict[int, KeyValues] = {}
            span = self._prompt_span(pool)
            layout = self._model.trunk.layout([span], pool.keys)
            self._model.trunk.whole(self._prompt_nd, Attended(layout, pool.cached, made))
            kept = self._model.base.kept_dtype
            self._kept = {layer: (keys.to(kept), values.to(kept)) for layer, (keys, values) in made.items()}
        return self._kept

    def _prompt_span(self, pool: Pool) -> Span:
        head = len(self._model.encoder.head)
        # The head's keys come first in every pool.
        return Span(self.length, np.arange(head, head + self.length), np.arange(head), causal(self.length))


class SoftPromptPolicy(PromptedPolicy):
    """One policy version behind the soft prompt of one context.

    Parameters
    ----------
    context
        Coordinates of the soft prompt.
    """

    def __init__(self, model: TorchModel, load: Load, version: str, scenes: SceneCache, context: SoftPrompt) -> None:
        self._weights_W = torch.from_numpy(np.array(context.weights)).to(model.base.device)
        self._subspace = model.subspace(context.space)
        super().__init__(model, load, version, scenes, self._subspace.prompts(self._weights_W[None])[0])

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, shape ``(len(turns), dimension)``.

        Every turn of a batch has a copy of the soft prompt to itself, so that one backward pass gives the gradient of
        each turn.
        """
        model, found = self._model, [np.zeros((0, len(self._weights_W)), dtype=np.float32)]
        with self._lock:
            version = self._load()
            # A cache of its own: what is in the other depends on what other clients have played.
            scenes = model.new_scenes()
            pairs = list(zip(model.encoder.encode([turn.situation for turn in turns]), turns, strict=True))
            for batch in cut(pairs, lambda pair: len(pair[0].tokens) + self.length, GRADIENT_TOKENS):
                rows = [row for row, _ in batch]
                scenes.prepare([row.scene for row in rows], version)
                found.append(self._gradients(rows, [turn.action for _, turn in batch], scenes))
        return np.concatenate(found)

    def _gradients(self, rows: Sequence[Row], actions: Sequence[int], scenes: SceneCache) -> NDArray[np.float32]:
        trunk = self._model.trunk
        # Inference tensors cannot be saved for a backward pass; copies of them can.
        pool = scenes.pool(row.scene for row in rows)
        cached = {layer: (keys.clone(), values.clone()) for layer, (keys, values) in pool.cached.items()}
        weights_BW = self._weights_W.repeat(len(rows), 1).requires_grad_()
        prompts = [self._prompt_span(pool) for _ in rows]
        places = [pool.keys + self.length * place + np.arange(self.length) for place in range(len(rows))]
        spans, starts = self._model.spans(rows, pool, places)
        layout = trunk.layout([*prompts, *spans], pool.keys)
        before = self.length * len(rows)
        with torch.enable_grad():
            own = trunk.embed([token for row in rows for token in row.tokens]).detach()
            hidden = torch.cat([self._subspace.prompts(weights_BW).flatten(0, 1), own])
            top = trunk.whole(hidden, Attended(layout, cached))
            answers = trunk.log_probs(top, rows, [before + start for start in starts])
            said = torch.stack([answer[action] for answer, action in zip(answers, actions, strict=True)])
            (gradient_BW,) = torch.autograd.grad(said.sum(), weights_BW)
        return gradient_BW.cpu().numpy()
