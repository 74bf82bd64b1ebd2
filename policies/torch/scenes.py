"""Key-value caches of heads and scenes: what several turns, games and policy versions share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from ..spans import Span, causal
from ..tokens import Ids, TokensKey, cut
from .segments import Attended, KeyValues
from .trunk import Trunk, stack, unstack

TOKENS_KEPT = 40_000  # 23 KB a token in half precision, for a model of 30 layers with three key-value heads
BATCH_TOKENS = 768  # enough for matrix products to run at full speed


@dataclass
class Scene:
    """One segment: its hidden states below the first adapted layer, and its keys and values in all layers.

    Shapes: `hidden` (t, hidden); `bottom` and `top` (layers, 2, G, t, D). `top` belongs to one policy version. Keys and
    values take half the memory where the frozen layers are computed in half precision.
    """

    hidden: torch.Tensor
    bottom: torch.Tensor
    top: torch.Tensor | None = None
    version: str = ""


@dataclass(frozen=True)
class Pool:
    """Cached keys of a head and several scenes, and where each lies."""

    cached: dict[int, KeyValues]
    keys: int
    places: dict[Ids, np.ndarray]


class SceneCache:
    """Computes what is missing, keeps what was used last, and serves it packed.

    What is missing together is computed together, nearly twice as fast as one by one; but the last bits of a matrix
    product depend on its shape. What must come out the same to the bit when a run is resumed therefore starts with an
    empty cache of its own.

    Parameters
    ----------
    keeps_rows
        Whether `rows` is to keep what the frozen layers make of every row that is played, because it will be trained
        on: hidden states below the first adapted layer, shape (t, hidden).
    """

    def __init__(self, trunk: Trunk, head: Ids, keeps_rows: bool = False) -> None:
        self._trunk, self._head = trunk, head
        self.rows: dict[TokensKey, torch.Tensor] | None = {} if keeps_rows else None
        self._scenes: OrderedDict[Ids, Scene] = OrderedDict()

    @torch.inference_mode()
    def prepare(self, scenes: Iterable[Ids], version: str | None) -> None:
        """Compute the bottoms of the head and of these scenes, and their tops too if a version is given."""
        wanted = list(dict.fromkeys(scenes))
        for parts in ([self._head], wanted):  # a scene attends to the head
            for batch in _by_length([part for part in parts if part not in self._scenes]):
                self._compute_bottoms(batch)
            if version is not None:
                for batch in _by_length([part for part in parts if self._scenes[part].version != version]):
                    self._compute_tops(batch, version)
        for scene in (*wanted, self._head):
            self._scenes.move_to_end(scene)
        self._forget(len(wanted) + 1)

    def pool(self, scenes: Iterable[Ids], bottoms: bool = True, tops: bool = True) -> Pool:
        """Pack the head and these scenes, all prepared before, for the layers that are asked for."""
        parts = [self._head, *dict.fromkeys(scenes)]
        chosen = [self._scenes[part] for part in parts]
        cached: dict[int, KeyValues] = {}
        if bottoms:
            cached |= unstack(torch.cat([scene.bottom for scene in chosen], dim=3), 0)
        if tops:
            packed = torch.cat([scene.top for scene in chosen if scene.top is not None], dim=3)
            cached |= unstack(packed, self._trunk.first)
        ends = np.cumsum([len(part) for part in parts])
        places = {part: np.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)}
        return Pool(cached, int(ends[-1]), places)

    def _compute_bottoms(self, batch: Sequence[Ids]) -> None:
        made: dict[int, KeyValues] = {}
        first = self._trunk.first
        hidden = self._trunk.embed([token for scene in batch for token in scene])
        hidden = self._trunk.run(hidden, 0, first, self._attended(batch, made))
        stacked = stack(made, range(first)) if first else hidden.new_zeros(0, 2, 1, len(hidden), 1)
        lengths = [len(scene) for scene in batch]
        for scene, own, bottom in zip(batch, hidden.split(lengths), stacked.split(lengths, dim=3), strict=True):
            self._scenes[scene] = Scene(own.clone(), self._kept(bottom))

    def _compute_tops(self, batch: Sequence[Ids], version: str) -> None:
        made: dict[int, KeyValues] = {}
        first, layers = self._trunk.first, self._trunk.layers
        hidden = torch.cat([self._scenes[scene].hidden for scene in batch])
        self._trunk.run(hidden, first, layers, self._attended(batch, made))
        tops = stack(made, range(first, layers)).split([len(scene) for scene in batch], dim=3)
        for scene, top in zip(batch, tops, strict=True):
            kept = self._scenes[scene]
            kept.top, kept.version = self._kept(top), version

    def _kept(self, keys: torch.Tensor) -> torch.Tensor:
        """A copy of its own, so that the batch that it was computed with can go."""
        return keys.to(self._trunk.base.kept_dtype, copy=True)

    def _attended(self, batch: Sequence[Ids], made: dict[int, KeyValues]) -> Attended:
        """The head attends to itself only; a scene to the head and itself."""
        head = self._scenes[self._head] if self._head not in batch else None
        known = len(self._head) if head is not None else 0
        spans = [
            Span(len(scene), np.arange(known, known + len(scene)), np.arange(known), causal(len(scene)))
            for scene in batch
        ]
        cached: dict[int, KeyValues] = {}
        if head is not None:
            cached = unstack(head.bottom, 0)
            cached |= unstack(head.top, self._trunk.first) if head.top is not None else {}
        return Attended(self._trunk.layout(spans, known), cached, made)

    def _forget(self, needed: int) -> None:
        """Drop what was used longest ago, but nothing that was asked for just now."""
        kept = sum(len(scene) for scene in self._scenes)
        while kept > TOKENS_KEPT and len(self._scenes) > needed:
            dropped, _ = self._scenes.popitem(last=False)
            kept -= len(dropped)


def _by_length(scenes: Sequence[Ids]) -> Iterator[list[Ids]]:
    """Put scenes of like length together, about `BATCH_TOKENS` tokens at a time."""
    return cut(sorted(scenes, key=len), len, BATCH_TOKENS)
