"""Incremental decoding over a packed batch: rows behind cached prefixes, extended by some tokens at a time.

Every policy of the torch backend can open a decoder: the bare one, one with a context in its prompt, one with a control
vector. They differ in the keys that rows attend to, and in the forward pass.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from threading import RLock
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..policy import LogProbs, Policy
from ..tokens import PackedSequence, TokenizedSituation, causal
from .model import TorchModel
from .packed_attention import AttentionInputs, KeyValues
from .prefix_cache import PackedPrefixes, PrefixCache
from .trunk import Trunk

Load = Callable[[], str]  # puts an adapter in place, and returns the name of its version
Forward = Callable[[torch.Tensor, AttentionInputs], torch.Tensor]
Indices = NDArray[np.int64]


class PackedDecoder:
    """A batch of rows with the key-value cache of what they have read so far.

    Parameters
    ----------
    forward
        Forward pass of packed embeddings through all layers.
    head
        Number of tokens in the head of the prompt; its keys come first among the prefixes.
    prefixes
        Keys and values of the head and of all rows' scenes.
    segment, length
        Keys and values of a context in the prompt that every row attends to, and its number of tokens.
    """

    def __init__(
        self,
        trunk: Trunk,
        forward: Forward,
        head: int,
        rows: Sequence[TokenizedSituation],
        prefixes: PackedPrefixes,
        segment: dict[int, KeyValues] | None = None,
        length: int = 0,
    ) -> None:
        self._trunk, self._forward, self._rows = trunk, forward, rows
        self._cached = joined(prefixes.key_values, segment) if segment else prefixes.key_values
        self._key_positions = np.concatenate([prefixes.positions, head + np.arange(length)])
        shared = np.concatenate([np.arange(head), np.arange(prefixes.length, len(self._key_positions))])
        self._shared: list[Indices] = [np.concatenate([shared, prefixes.indices[row.scene]]) for row in rows]
        self._own: list[Indices] = [np.zeros(0, dtype=np.int64)] * len(rows)  # keys of what each row has read here
        self._positions = [head + len(row.scene) for row in rows]

    def score_commands(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Read the moment and the command tree of every row; only the moment stays in the cache.

        Returns
        -------
        log_probs
            Log-probabilities of each row's commands, shape (A,) each.
        last
            Hidden state that the LM head reads at the end of each moment, shape (hidden,) each.
        """
        read = zip(self._rows, self._positions, self._shared, self._own, strict=True)
        sequences = [row.packed(position, np.concatenate([shared, own])) for row, position, shared, own in read]
        starts = np.cumsum([0, *(sequence.length for sequence in sequences)])[:-1]
        top = self._run([token for row in self._rows for token in row.tokens], sequences)
        for index, (row, start) in enumerate(zip(self._rows, starts, strict=True)):
            self._append(index, int(start), len(row.moment))
        self._keep_positions(sequences)
        ends = [start + len(row.moment) - 1 for row, start in zip(self._rows, starts, strict=True)]
        last = self._trunk.base.decoder.norm(top[torch.tensor(ends, device=top.device)])
        return self._trunk.log_probs(top, self._rows, starts.tolist()), list(last)

    def fork(self, copies: Sequence[int]) -> None:
        """Make so many rows of each one, side by side, which share what it has read."""
        parents = np.repeat(np.arange(len(self._rows)), copies).tolist()
        visible = [np.concatenate(keys) for keys in zip(self._shared, self._own, strict=True)]
        self._rows = [self._rows[parent] for parent in parents]
        self._shared = [visible[parent] for parent in parents]
        self._own = [np.zeros(0, dtype=np.int64)] * len(parents)
        self._positions = [self._positions[parent] for parent in parents]

    def extend(self, indices: Sequence[int], texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Append tokens to some rows.

        Returns
        -------
        list of tensors
            Hidden states that the LM head reads at each new token, shape (t, hidden) for each of the rows.
        """
        lengths = [len(text) for text in texts]
        sequences = [self._together(copies) for copies in self._of_one_row(indices, lengths)]
        top = self._run([token for text in texts for token in text], sequences)
        for index, start, length in zip(indices, np.cumsum([0, *lengths])[:-1], lengths, strict=True):
            self._append(index, int(start), length)
        self._keep_positions(sequences)
        return list(self._trunk.base.decoder.norm(top).split(lengths))

    def _of_one_row(self, indices: Sequence[int], lengths: Sequence[int]) -> list[list[tuple[int, int]]]:
        """Group the copies of a row that stand side by side: indices, each with its number of new tokens.

        A group's keys are gathered once, and each of its tokens is compared with the keys of all: copies that have
        written more than they share are not put together.
        """
        groups: list[list[tuple[int, int]]] = []
        own = 0
        for index, length in zip(indices, lengths, strict=True):
            written = len(self._own[index]) + length
            shared = self._shared[index]
            if groups and self._shared[groups[-1][-1][0]] is shared and own + written <= len(shared):
                groups[-1].append((index, length))
                own += written
            else:
                groups.append([(index, length)])
                own = written
        return groups

    def _together(self, copies: Sequence[tuple[int, int]]) -> PackedSequence:
        """Return copies of a row as one sequence, in which each attends to what they share and to its own tokens."""
        shared = self._shared[copies[0][0]]
        positions = np.concatenate([self._positions[index] + np.arange(length) for index, length in copies])
        keys = np.concatenate([shared, *(self._own[index] for index, _ in copies)])
        mask = np.zeros((len(positions), len(positions)), dtype=bool)
        prefix_mask = np.zeros((len(positions), len(keys)), dtype=bool)
        prefix_mask[:, : len(shared)] = True
        token, key = 0, len(shared)
        for index, length in copies:
            own = len(self._own[index])
            mask[token : token + length, token : token + length] = causal(length)
            prefix_mask[token : token + length, key : key + own] = True
            token, key = token + length, key + own
        return PackedSequence(len(positions), positions, keys, mask, prefix_mask)

    def _run(self, tokens: Sequence[int], sequences: Sequence[PackedSequence]) -> torch.Tensor:
        computed: dict[int, KeyValues] = {}
        inputs = AttentionInputs(self._trunk.layout(sequences, self._key_positions), self._cached, computed)
        top = self._forward(self._trunk.embed(tokens), inputs)
        self._cached = joined(self._cached, computed)
        return top

    def _append(self, index: int, start: int, length: int) -> None:
        """Make the tokens that a row has just read visible to its next ones."""
        new = len(self._key_positions) + start + np.arange(length)
        self._own[index] = np.concatenate([self._own[index], new])
        self._positions[index] += length

    def _keep_positions(self, sequences: Sequence[PackedSequence]) -> None:
        read = [sequence.positions for sequence in sequences]
        self._key_positions = np.concatenate([self._key_positions, *read])


def joined(old: dict[int, KeyValues], new: dict[int, KeyValues]) -> dict[int, KeyValues]:
    """Concatenate keys and values, layer by layer, along the token dimension."""
    if not old:
        return new
    return {
        layer: (torch.cat([keys, new[layer][0].to(keys)], dim=1), torch.cat([values, new[layer][1].to(values)], dim=1))
        for layer, (keys, values) in old.items()
    }


@runtime_checkable
class TorchBackendPolicy(Policy, Protocol):
    """A policy of the torch backend: it scores commands by its own forward pass."""

    @property
    def model(self) -> TorchModel:
        """The model in memory, shared with other policies."""

    def open_decoder(self, rows: Sequence[TokenizedSituation]) -> AbstractContextManager[PackedDecoder]:
        """Open a decoder over rows, under this policy's adapter and context."""


class ContextPolicy:
    """One policy version under a context, inside of the model: what all such policies share.

    Parameters
    ----------
    load
        Loads the version's adapter.
    """

    abilities: frozenset[str] = frozenset()

    def __init__(self, model: TorchModel, load: Load, version: str, prefix_cache: PrefixCache) -> None:
        self.model, self._load, self._prefix_cache = model, load, prefix_cache
        self.version, self._lock = f"{version}+context", RLock()

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation, without those of a context."""
        return [self.model.tokenizer.prompt_tokens(situation) for situation in situations]

    def open_decoder(self, rows: Sequence[TokenizedSituation]) -> AbstractContextManager[PackedDecoder]:
        """Open a decoder over rows, under this policy's adapter and context."""
        raise NotImplementedError

    @torch.inference_mode()
    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        log_probs = list[LogProbs]()
        for rows in self.model.chunks(self.model.tokenizer.encode(situations)):
            with self.open_decoder(rows) as decoder:
                log_probs += [scores.cpu().numpy() for scores in decoder.score_commands()[0]]
        return log_probs

    def _prefixes(self, rows: Sequence[TokenizedSituation]) -> PackedPrefixes:
        self._prefix_cache.prepare([row.scene for row in rows], self._load())
        return self._prefix_cache.pack(row.scene for row in rows)
