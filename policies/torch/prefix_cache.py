"""Prefix cache: keys and values of heads and scenes, shared by turns, games and policy versions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from ..tokens import CommandsKey, Ids, PackedSequence, TokenizedSituation, TokensKey, WholeCommands, causal, cut
from .packed_attention import AttentionInputs, KeyValues, Positions
from .trunk import Trunk, stack, unstack

TOKENS_KEPT = 8_000  # 23 KB a token in half precision, for a model of 30 layers with three key-value heads
BATCH_TOKENS = 768  # enough for matrix products to run at full speed


@dataclass
class CachedSegment:
    """A head or a scene: its hidden states below the first adapted layer, and its keys and values in all layers.

    Shapes: `hidden` (t, hidden); `bottom` (frozen layers) and `top` (adapted layers) (layers, 2, G, t, D). The top was
    computed by the policy version `version`. Keys and values are kept in half precision where the frozen layers are
    computed in half precision.
    """

    hidden: torch.Tensor
    bottom: torch.Tensor
    top: torch.Tensor | None = None
    version: str = ""


@dataclass(frozen=True)
class Kept:
    """Hidden states below the first adapted layer, which training starts from.

    Parameters
    ----------
    rows
        Those of each row that was read, shape (t, hidden).
    segments
        Those of heads and scenes, shape (t, hidden).
    embeddings
        Those of the commands of a row, shape (A, hidden), where they were computed.
    """

    rows: dict[TokensKey, torch.Tensor] = field(default_factory=dict)
    segments: dict[Ids, torch.Tensor] = field(default_factory=dict)
    embeddings: dict[CommandsKey, torch.Tensor] = field(default_factory=dict)

    def add(self, other: Kept) -> None:
        """Add what was kept elsewhere."""
        self.rows.update(other.rows)
        self.segments.update(other.segments)
        self.embeddings.update(other.embeddings)


@dataclass(frozen=True)
class PackedPrefixes:
    """Keys and values of a head and several scenes, one behind the other.

    Parameters
    ----------
    key_values
        By layer.
    positions
        Position of each key in its prompt, shape (keys,).
    indices
        Indices of each segment's keys.
    """

    key_values: dict[int, KeyValues]
    positions: Positions
    indices: dict[Ids, np.ndarray]

    @property
    def length(self) -> int:
        """Number of keys."""
        return len(self.positions)


class PrefixCache:
    """Computes missing segments, keeps the most recently used ones, and packs them for a forward pass.

    Segments that are missing together are computed in one batch, nearly twice as fast as one by one. The last bits of a
    matrix product depend on its shape, so that a computation that must repeat to the bit when a run is resumed has to
    start with an empty cache.

    Parameters
    ----------
    head
        Token ids of the head of all prompts.
    keep_bottoms
        Whether `kept` keeps what the frozen layers compute.
    """

    def __init__(self, trunk: Trunk, head: Ids, keep_bottoms: bool = False) -> None:
        self._trunk, self._head = trunk, head
        self.kept = Kept() if keep_bottoms else None
        self._segments: OrderedDict[Ids, CachedSegment] = OrderedDict()

    @torch.inference_mode()
    def prepare(self, scenes: Iterable[Ids], version: str | None) -> None:
        """Compute the bottoms of the head and of these scenes and, if a version is given, their tops."""
        wanted = list(dict.fromkeys(scenes))
        for segments in ([self._head], wanted):  # a scene attends to the head
            for batch in _by_length([segment for segment in segments if segment not in self._segments]):
                self._compute_bottoms(batch)
            if version is not None:
                for batch in _by_length([part for part in segments if self._segments[part].version != version]):
                    self._compute_tops(batch, version)
        for segment in (*wanted, self._head):
            self._segments.move_to_end(segment)
        self._evict(len(wanted) + 1)

    def clear(self) -> None:
        """Empty the cache for all who use it; `kept` begins anew, and what it was before stays as it is."""
        self._segments.clear()
        self.kept = Kept() if self.kept is not None else None

    def put(self, bottoms: Mapping[Ids, torch.Tensor]) -> None:
        """Put in segments by their hidden states below the first adapted layer: only their tops can be used then."""
        self._segments |= {segment: CachedSegment(hidden, hidden[:0]) for segment, hidden in bottoms.items()}

    def branch(self) -> PrefixCache:
        """Return a cache with the same bottoms and no tops, for another version that is used by turns with this one."""
        other = PrefixCache(self._trunk, self._head)
        other._segments |= {key: CachedSegment(part.hidden, part.bottom) for key, part in self._segments.items()}
        return other

    def keep(self, rows: Sequence[TokenizedSituation], bottoms: Sequence[torch.Tensor]) -> None:
        """Keep what the frozen layers computed of rows, if this cache keeps it: copies, so that batches are freed."""
        if self.kept is not None:
            self.kept.rows.update((row.key, part.clone()) for row, part in zip(rows, bottoms, strict=True))

    def keep_embeddings(self, commands: Sequence[WholeCommands], embeddings: Sequence[torch.Tensor]) -> None:
        """Keep the embeddings of commands, if this cache keeps what the frozen layers computed."""
        if self.kept is not None:
            self.kept.embeddings.update((c.key, part) for c, part in zip(commands, embeddings, strict=True))

    def pack(self, scenes: Iterable[Ids], bottoms: bool = True, tops: bool = True) -> PackedPrefixes:
        """Pack the head and these scenes, all prepared before, for the frozen layers, the adapted layers, or both."""
        segments = [self._head, *dict.fromkeys(scenes)]
        cached = [self._segments[segment] for segment in segments]
        key_values: dict[int, KeyValues] = {}
        if bottoms:
            key_values |= unstack(torch.cat([segment.bottom for segment in cached], dim=3), 0)
        if tops:
            packed = torch.cat([segment.top for segment in cached if segment.top is not None], dim=3)
            key_values |= unstack(packed, self._trunk.first_adapted)
        ends = np.cumsum([len(segment) for segment in segments])
        indices = {segment: np.arange(end - len(segment), end) for segment, end in zip(segments, ends, strict=True)}
        head = np.arange(len(self._head))
        positions = [head, *(len(head) + np.arange(len(segment)) for segment in segments[1:])]
        return PackedPrefixes(key_values, np.concatenate(positions), indices)

    def _compute_bottoms(self, batch: Sequence[Ids]) -> None:
        computed: dict[int, KeyValues] = {}
        first = self._trunk.first_adapted
        hidden = self._trunk.embed([token for segment in batch for token in segment])
        hidden = self._trunk.run(hidden, 0, first, self._attention_inputs(batch, computed))
        stacked = stack(computed, range(first)) if first else hidden.new_zeros(0, 2, 1, len(hidden), 1)
        lengths = [len(segment) for segment in batch]
        parts = zip(batch, hidden.split(lengths), stacked.split(lengths, dim=3), strict=True)
        for segment, segment_hidden, bottom in parts:
            cached = self._segments[segment] = CachedSegment(segment_hidden.clone(), self._kept(bottom))
            if self.kept is not None:
                self.kept.segments[segment] = cached.hidden

    def _compute_tops(self, batch: Sequence[Ids], version: str) -> None:
        computed: dict[int, KeyValues] = {}
        first, layers = self._trunk.first_adapted, self._trunk.layer_count
        hidden = torch.cat([self._segments[segment].hidden for segment in batch])
        self._trunk.run(hidden, first, layers, self._attention_inputs(batch, computed))
        tops = stack(computed, range(first, layers)).split([len(segment) for segment in batch], dim=3)
        for segment, top in zip(batch, tops, strict=True):
            cached = self._segments[segment]
            cached.top, cached.version = self._kept(top), version

    def _kept(self, key_values: torch.Tensor) -> torch.Tensor:
        """Copy keys and values, so that the memory of the batch can be freed."""
        return key_values.to(self._trunk.base.kept_dtype, copy=True)

    def _attention_inputs(self, batch: Sequence[Ids], computed: dict[int, KeyValues]) -> AttentionInputs:
        """Let the head attend to itself only, and a scene to the head and itself."""
        head = self._segments[self._head] if self._head not in batch else None
        known = len(self._head) if head is not None else 0
        sequences = [
            PackedSequence(len(scene), np.arange(known, known + len(scene)), np.arange(known), causal(len(scene)))
            for scene in batch
        ]
        cached: dict[int, KeyValues] = {}
        if head is not None:
            cached = unstack(head.bottom, 0)
            cached |= unstack(head.top, self._trunk.first_adapted) if head.top is not None else {}
        return AttentionInputs(self._trunk.layout(sequences, np.arange(known)), cached, computed)

    def _evict(self, needed: int) -> None:
        """Drop the least recently used segments beyond `TOKENS_KEPT` tokens, but none of the `needed` last ones."""
        kept = sum(len(segment) for segment in self._segments)
        while kept > TOKENS_KEPT and len(self._segments) > needed:
            dropped, _ = self._segments.popitem(last=False)
            kept -= len(dropped)


def _by_length(segments: Sequence[Ids]) -> Iterator[list[Ids]]:
    """Batch segments of similar length, about `BATCH_TOKENS` tokens at a time."""
    return cut(sorted(segments, key=len), len, BATCH_TOKENS)
