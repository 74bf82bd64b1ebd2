"""One base model in memory, with LoRA layers, tokenizer and forward pass, which all policies of this backend share."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from peft import get_peft_model_state_dict, set_peft_model_state_dict

from ...protocol.config import PolicyConfig
from ...protocol.errors import ModelError
from ...protocol.host.memory import return_large_blocks_when_freed
from ...protocol.prompts import TREE_STYLE, Style
from ...protocol.situation import Situation
from ...protocol.versions import Adapter, policy_version
from ..policy import LogProbs
from ..spaces import PromptSpace
from ..tokens import PackedSequence, PromptTokenizer, TokenizedSituation, cut
from .base import Base, load_base
from .packed_attention import AttentionInputs
from .prefix_cache import PackedPrefixes, PrefixCache
from .trunk import Trunk


class TorchModel:
    """One base model in memory, with the adapter of one version at a time.

    Parameters
    ----------
    batch_tokens
        Tokens of one forward pass.
    style
        How prompts ask the policies of this model.
    """

    def __init__(self, base: Base, batch_tokens: int, style: Style = TREE_STYLE) -> None:
        self.base, self.batch_tokens, self.style = base, batch_tokens, style
        self.tokenizer = PromptTokenizer(base.tokenizer, style)
        self.trunk = Trunk(base)
        self.fresh = self.adapter()
        self.version = ""
        self._subspaces: dict[PromptSpace, Subspace] = {}

    @property
    def name(self) -> str:
        """Digest of the base model and, unless it is the default, the prompt style: what policy versions start from."""
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
        """Load an adapter, the fresh LoRA layers if it is empty, and return the policy version.

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
        """Update the version after LoRA weights changed in place, so that cached tops of the old ones are not used."""
        self.version = policy_version(self.name, self.adapter())

    def subspace(self, space: PromptSpace) -> Subspace:
        """Return a subspace of this model's soft prompts, computed once."""
        if space not in self._subspaces:
            self._subspaces[space] = Subspace(self.trunk, self.tokenizer, space)
        return self._subspaces[space]

    def new_prefix_cache(self, keep_bottoms: bool = False) -> PrefixCache:
        """Make an empty prefix cache."""
        return PrefixCache(self.trunk, self.tokenizer.head, keep_bottoms)

    @torch.inference_mode()
    def score(self, situations: Sequence[Situation], prefix_cache: PrefixCache | None = None) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands under the loaded adapter."""
        prefix_cache, log_probs = prefix_cache or self.new_prefix_cache(), list[LogProbs]()
        for rows in self.chunks(self.tokenizer.encode(situations)):
            prefix_cache.prepare([row.scene for row in rows], self.version)
            hidden, starts, inputs = self.run_frozen_layers(rows, prefix_cache)
            prefix_cache.keep(rows, hidden.split([len(row.tokens) for row in rows]))
            top = self.trunk.run(hidden, self.trunk.first_adapted, self.trunk.layer_count, inputs)
            log_probs += [scores.cpu().numpy() for scores in self.trunk.log_probs(top, rows, starts)]
        return log_probs

    @torch.inference_mode()
    def score_and_embed(
        self, situations: Sequence[Situation], prefix_cache: PrefixCache, scored: bool = True
    ) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Log-probabilities of each situation's commands, empty unless `scored`, and their embeddings.

        The frozen layers read all tokens of the commands, the adapted ones only those that scores depend on.
        """
        results = list[tuple[LogProbs, NDArray[np.float32]]]()
        commands = self.tokenizer.encode_whole(situations)
        for batch in cut(commands, lambda command: len(command.whole.tokens), self.batch_tokens):
            rows = [command.row for command in batch]
            prefix_cache.prepare([row.scene for row in rows], self.version if scored else None)
            hidden, _, _ = self.run_frozen_layers([command.whole for command in batch], prefix_cache, tops=False)
            whole = hidden.split([len(command.whole.tokens) for command in batch])
            embeddings = [
                part[torch.from_numpy(command.last).to(part.device)] for part, command in zip(whole, batch, strict=True)
            ]
            bottoms = [part[: len(row.tokens)] for part, row in zip(whole, rows, strict=True)]
            prefix_cache.keep(rows, bottoms)
            prefix_cache.keep_embeddings(batch, embeddings)
            log_probs = self.run_adapted_layers(rows, bottoms, prefix_cache) if scored else [hidden[:0, 0]] * len(rows)
            results += [
                (scores.cpu().numpy(), embedding.cpu().numpy())
                for scores, embedding in zip(log_probs, embeddings, strict=True)
            ]
        return results

    def run_adapted_layers(
        self, rows: Sequence[TokenizedSituation], bottoms: Sequence[torch.Tensor], prefix_cache: PrefixCache
    ) -> list[torch.Tensor]:
        """Log-probabilities of each row's commands, shapes (A,), from its hidden states below the first adapted layer.

        Differentiable in the adapter. Keys and values of prompt heads and scenes, prepared before, are constants.
        """
        prefixes = prefix_cache.pack((row.scene for row in rows), bottoms=False)
        sequences, starts = self.pack(rows, prefixes)
        inputs = AttentionInputs(self.trunk.layout(sequences, prefixes.positions), prefixes.key_values)
        top = self.trunk.run(torch.cat(list(bottoms)), self.trunk.first_adapted, self.trunk.layer_count, inputs)
        return self.trunk.log_probs(top, rows, starts)

    def run_frozen_layers(
        self, rows: Sequence[TokenizedSituation], prefix_cache: PrefixCache, tops: bool = True
    ) -> tuple[torch.Tensor, list[int], AttentionInputs]:
        """Run rows behind their cached prefixes through the frozen layers.

        Parameters
        ----------
        tops
            Whether the attention inputs will serve the adapted layers, too.

        Returns
        -------
        hidden, starts, inputs
            Hidden states below the first adapted layer, shape (T, hidden); index of each row's first token in them; and
            the attention inputs for further layers.
        """
        prefixes = prefix_cache.pack((row.scene for row in rows), tops=tops)
        sequences, starts = self.pack(rows, prefixes)
        inputs = AttentionInputs(self.trunk.layout(sequences, prefixes.positions), prefixes.key_values)
        embeddings = self.trunk.embed([token for row in rows for token in row.tokens])
        return self.trunk.run(embeddings, 0, self.trunk.first_adapted, inputs), starts, inputs

    def pack(
        self,
        rows: Sequence[TokenizedSituation],
        prefixes: PackedPrefixes,
        prompts: Sequence[NDArray[np.int64]] | None = None,
    ) -> tuple[list[PackedSequence], list[int]]:
        """Return rows as packed sequences behind head and scene, and the index of each row's first token.

        Parameters
        ----------
        prompts
            For each row the indices of the keys of a context in its prompt.
        """
        head = len(self.tokenizer.head)
        contexts = prompts or [np.zeros(0, dtype=np.int64)] * len(rows)
        sequences = [
            row.packed(head + len(row.scene), np.concatenate([np.arange(head), prefixes.indices[row.scene], context]))
            for row, context in zip(rows, contexts, strict=True)
        ]
        return sequences, np.cumsum([0, *(sequence.length for sequence in sequences)])[:-1].tolist()

    def chunks(self, rows: Sequence[TokenizedSituation]) -> Iterator[list[TokenizedSituation]]:
        """Cut rows, in their order, into batches of at most `batch_tokens` tokens."""
        return cut(rows, lambda row: len(row.tokens), self.batch_tokens)


class Subspace:
    """Maps coordinates w to the embeddings ``start + scale |start| sum_i w_i direction_i`` of a soft prompt."""

    @torch.inference_mode(False)  # the caller may be in inference mode, but gradients go through these tensors later
    @torch.no_grad()
    def __init__(self, trunk: Trunk, tokenizer: PromptTokenizer, space: PromptSpace) -> None:
        tokens = tokenizer.ids(space.start)
        repeated = [tokens[index % len(tokens)] for index in range(space.virtual_tokens)]
        self.start_nd = trunk.embed(repeated)
        length = float(self.start_nd.norm(dim=-1).mean())
        unit_Wnd = torch.from_numpy(space.directions(self.start_nd.shape[1])).to(self.start_nd)
        self.directions_Wnd = space.scale * length * unit_Wnd

    def prompts(self, weights_BW: torch.Tensor) -> torch.Tensor:
        """Embeddings of one soft prompt for each context, shape (B, n, hidden)."""
        return self.start_nd + torch.einsum("bw,wnd->bnd", weights_BW, self.directions_Wnd)


@lru_cache(maxsize=1)
def load_model(config: PolicyConfig, cache: Path) -> TorchModel:
    """Load the base model, once per process."""
    return_large_blocks_when_freed()
    style = Style(config.decoding == "free", config.thinking, config.listed)
    return TorchModel(load_base(config, cache), config.batch_tokens, style)
