"""One base model in memory: its LoRA layers, its tokens, and the way through its layers. Policies share it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from ...protocol.config import PolicyConfig
from ...protocol.errors import ModelError
from ...protocol.prompts import TREE_STYLE, Style
from ...protocol.situation import Situation
from ...protocol.versions import policy_version
from ..policy import LogProbs
from ..spaces import PromptSpace
from ..spans import Span
from ..tokens import PromptTokenizer, Row, cut
from .base import Base, load_base
from .scenes import Pool, SceneCache
from .segments import Attended
from .subspace import Subspace
from .trunk import Trunk

Adapter = Mapping[str, NDArray[Any]]


class TorchModel:
    """One base model in memory, with the adapter of one version at a time.

    Parameters
    ----------
    batch_tokens
        How many tokens go through the model at a time.
    style
        How the policies of this model are asked.
    """

    def __init__(self, base: Base, batch_tokens: int, style: Style = TREE_STYLE) -> None:
        self.base, self.batch_tokens, self.style = base, batch_tokens, style
        self.encoder = PromptTokenizer(base.tokenizer, style)
        self.trunk = Trunk(base)
        self.fresh = self.adapter()
        self.version = ""
        self._subspaces: dict[PromptSpace, Subspace] = {}

    @property
    def name(self) -> str:
        """What adapters are put on: the digest of the base model and, unless it is the usual one, the style."""
        return f"{self.base.digest} {self.style.name}".strip()

    @property
    def trained(self) -> list[torch.nn.Parameter]:
        """The LoRA weights."""
        return [parameter for parameter in self.base.model.parameters() if parameter.requires_grad]

    def adapter(self) -> dict[str, NDArray[np.float32]]:
        """A copy of the LoRA weights, by PEFT's names."""
        state = get_peft_model_state_dict(self.base.model)
        return {name: tensor.detach().cpu().numpy().copy() for name, tensor in sorted(state.items())}

    def load(self, adapter: Adapter) -> str:
        """Put an adapter in place; an empty one stands for fresh LoRA layers. Returns the policy version.

        Raises
        ------
        ModelError
            If names or shapes are not those of this model's LoRA layers.
        """
        chosen = adapter or self.fresh
        if {name: array.shape for name, array in chosen.items()} != {n: a.shape for n, a in self.fresh.items()}:
            raise ModelError("the adapter does not fit: its LoRA rank, layers or base model differ from policy.lora-*")
        version = policy_version(self.name, chosen)
        if version != self.version:
            weights = {name: torch.from_numpy(array.astype(np.float32)) for name, array in chosen.items()}
            set_peft_model_state_dict(self.base.model, weights)
            self.version = version
        return version

    def changed(self) -> None:
        """Say that the LoRA weights were changed in place: what was computed with the old ones must not serve."""
        self.version = policy_version(self.name, self.adapter())

    def subspace(self, space: PromptSpace) -> Subspace:
        """Return a subspace of this model's soft prompts, made when it is first asked for."""
        if space not in self._subspaces:
            self._subspaces[space] = Subspace(self.trunk, self.encoder, space)
        return self._subspaces[space]

    def new_scenes(self, keeps_rows: bool = False) -> SceneCache:
        """Make an empty cache for the scenes of some games."""
        return SceneCache(self.trunk, self.encoder.head, keeps_rows)

    @torch.inference_mode()
    def score(self, situations: Sequence[Situation], scenes: SceneCache | None = None) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands under the loaded adapter."""
        scenes, answers = scenes or self.new_scenes(), list[LogProbs]()
        for rows in self.chunks(self.encoder.encode(situations)):
            scenes.prepare([row.scene for row in rows], self.version)
            hidden, starts, attended = self.below(rows, scenes)
            top = self.trunk.run(hidden, self.trunk.first, self.trunk.layers, attended)
            answers += [part.cpu().numpy() for part in self.trunk.log_probs(top, rows, starts)]
        return answers

    def below(
        self, rows: Sequence[Row], scenes: SceneCache, tops: bool = True
    ) -> tuple[torch.Tensor, list[int], Attended]:
        """Run rows behind their scenes through the frozen layers; also say where each starts, and what was attended."""
        pool = scenes.pool((row.scene for row in rows), tops=tops)
        spans, starts = self.spans(rows, pool)
        attended = Attended(self.trunk.layout(spans, pool.keys), pool.cached)
        hidden = self.trunk.run(
            self.trunk.embed([token for row in rows for token in row.tokens]), 0, self.trunk.first, attended
        )
        if scenes.rows is not None:
            parts = hidden.split([len(row.tokens) for row in rows])
            scenes.rows |= {row.key: part.clone() for row, part in zip(rows, parts, strict=True)}
        return hidden, starts, attended

    def spans(
        self, rows: Sequence[Row], pool: Pool, prompts: Sequence[NDArray[np.int64]] | None = None
    ) -> tuple[list[Span], list[int]]:
        """Lay rows out behind the head, their scenes, and one more segment each if given; also say where each starts.

        Parameters
        ----------
        prompts
            Indices of the keys of each row's further segment.
        """
        head = len(self.encoder.head)
        segments = prompts or [np.zeros(0, dtype=np.int64)] * len(rows)
        spans = [
            row.span(head + len(row.scene), np.concatenate([np.arange(head), pool.places[row.scene], segment]))
            for row, segment in zip(rows, segments, strict=True)
        ]
        return spans, np.cumsum([0, *(span.length for span in spans)])[:-1].tolist()

    def chunks(self, rows: Sequence[Row]) -> Iterator[list[Row]]:
        """Cut rows into batches of about `batch_tokens` tokens."""
        return cut(rows, lambda row: len(row.tokens), self.batch_tokens)


@lru_cache(maxsize=1)
def load_model(config: PolicyConfig, cache: Path) -> TorchModel:
    """Load the base model, once per process."""
    style = Style(config.decoding == "free", config.thinking, config.listed)
    return TorchModel(load_base(config, cache), config.batch_tokens, style)
