"""A torch policy with a context in its prompt, as words or as a soft prompt, and the gradients of the latter.

The context is a segment behind the head, beside the scene. It attends to the head; the moment and the commands attend
to it. Scenes do not, so that cached scenes serve all contexts, and a new context costs its own tokens only.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.play import Turn
from ...protocol.situation import Situation
from ..spaces import SoftPrompt
from ..tokens import PackedSequence, TokenizedSituation, causal, cut
from .model import TorchModel
from .packed_attention import AttentionInputs, KeyValues
from .packed_decoder import ContextPolicy, Load, PackedDecoder
from .prefix_cache import PackedPrefixes, PrefixCache

GRADIENT_TOKENS = 640  # per backward pass: about a gigabyte for a model of 135 million weights


class PromptedPolicy(ContextPolicy):
    """One policy version with a context in its prompt.

    Parameters
    ----------
    prompt_nd
        Embeddings of the context's tokens, real or virtual.
    """

    def __init__(
        self, model: TorchModel, load: Load, version: str, prefix_cache: PrefixCache, prompt_nd: torch.Tensor
    ) -> None:
        super().__init__(model, load, version, prefix_cache)
        self._prompt_nd = prompt_nd
        self._key_values: dict[int, KeyValues] = {}

    @property
    def length(self) -> int:
        """Number of tokens of the context."""
        return len(self._prompt_nd)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation, those of the context included."""
        return [tokens + self.length for tokens in super().tokens(situations)]

    @contextmanager
    def open_decoder(self, rows: Sequence[TokenizedSituation]) -> Iterator[PackedDecoder]:
        """Open a decoder over rows with the context in their prompts."""
        trunk, head = self.model.trunk, len(self.model.tokenizer.head)
        with self._lock:
            prefixes = self._prefixes(rows)
            context = self._context_key_values(prefixes)
            yield PackedDecoder(trunk, trunk.run_all, head, rows, prefixes, context, self.length)

    def _context_key_values(self, prefixes: PackedPrefixes) -> dict[int, KeyValues]:
        """Keys and values of the context in all layers. They depend on the head only, and are computed once."""
        if not self._key_values:
            computed: dict[int, KeyValues] = {}
            layout = self.model.trunk.layout([self._packed()], prefixes.positions)
            self.model.trunk.run_all(self._prompt_nd, AttentionInputs(layout, prefixes.key_values, computed))
            dtype = self.model.base.kept_dtype
            self._key_values = {layer: (keys.to(dtype), values.to(dtype)) for layer, (keys, values) in computed.items()}
        return self._key_values

    def _packed(self) -> PackedSequence:
        """Return the context as a sequence behind the head, whose keys come first among all prefixes."""
        head = len(self.model.tokenizer.head)
        return PackedSequence(self.length, np.arange(head, head + self.length), np.arange(head), causal(self.length))


class SoftPromptPolicy(PromptedPolicy):
    """One policy version with a soft prompt.

    Parameters
    ----------
    context
        Coordinates of the soft prompt.
    """

    def __init__(
        self, model: TorchModel, load: Load, version: str, prefix_cache: PrefixCache, context: SoftPrompt
    ) -> None:
        self._weights_W = torch.from_numpy(np.array(context.weights)).to(model.base.device)
        self._subspace = model.subspace(context.space)
        super().__init__(model, load, version, prefix_cache, self._subspace.prompts(self._weights_W[None])[0])

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, shape ``(len(turns), dimension)``.

        Every turn of a batch has its own copy of the soft prompt, so that one backward pass gives per-turn gradients.
        """
        model, gradients = self.model, [np.zeros((0, len(self._weights_W)), dtype=np.float32)]
        with self._lock:
            version = self._load()
            # A new cache: the last bits in the shared one depend on what other clients have played.
            prefix_cache = model.new_prefix_cache()
            pairs = list(zip(model.tokenizer.encode([turn.situation for turn in turns]), turns, strict=True))
            for batch in cut(pairs, lambda pair: len(pair[0].tokens) + self.length, GRADIENT_TOKENS):
                rows = [row for row, _ in batch]
                prefix_cache.prepare([row.scene for row in rows], version)
                gradients.append(self._gradients(rows, [turn.action for _, turn in batch], prefix_cache))
        return np.concatenate(gradients)

    def _gradients(
        self, rows: Sequence[TokenizedSituation], actions: Sequence[int], prefix_cache: PrefixCache
    ) -> NDArray[np.float32]:
        trunk = self.model.trunk
        # Inference tensors cannot be saved for a backward pass; copies of them can.
        prefixes = prefix_cache.pack(row.scene for row in rows)
        cached = {layer: (keys.clone(), values.clone()) for layer, (keys, values) in prefixes.key_values.items()}
        weights_BW = self._weights_W.repeat(len(rows), 1).requires_grad_()
        prompts = [self._packed() for _ in rows]
        prompt_keys = [prefixes.length + self.length * index + np.arange(self.length) for index in range(len(rows))]
        sequences, starts = self.model.pack(rows, prefixes, prompt_keys)
        layout = trunk.layout([*prompts, *sequences], prefixes.positions)
        prompt_tokens = self.length * len(rows)
        with torch.enable_grad():
            row_embeddings = trunk.embed([token for row in rows for token in row.tokens]).detach()
            hidden = torch.cat([self._subspace.prompts(weights_BW).flatten(0, 1), row_embeddings])
            top = trunk.run_all(hidden, AttentionInputs(layout, cached))
            log_probs = trunk.log_probs(top, rows, [prompt_tokens + start for start in starts])
            given = torch.stack([scores[action] for scores, action in zip(log_probs, actions, strict=True)])
            (gradient_BW,) = torch.autograd.grad(given.sum(), weights_BW)
        return gradient_BW.cpu().numpy()
