"""Key-value caches of heads and scenes: what several turns, games and policy versions share."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import torch

from .segments import Attended, KeyValues, Span, causal
from .tokens import Ids
from .trunk import Trunk, stack, unstack

TOKENS_KEPT = 40_000  # about 46 KB a token for a model of 30 layers with three key-value heads


@dataclass
class Scene:
    """One segment: its hidden states below the first adapted layer, and its keys and values in all layers.

    Shapes: `hidden` (t, hidden); `bottom` and `top` (layers, 2, G, t, D). `top` belongs to one policy version.
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
    """Computes what is missing, keeps what was used last, and serves it packed."""

    def __init__(self, trunk: Trunk, head: Ids) -> None:
        self._trunk, self._head = trunk, head
        self._scenes: OrderedDict[Ids, Scene] = OrderedDict()

    def hidden(self, scene: Ids) -> torch.Tensor:
        """Hidden states of a scene below the first adapted layer, shape (t, hidden)."""
        return self._scenes[scene].hidden

    @torch.inference_mode()
    def prepare(self, scenes: Iterable[Ids], version: str | None) -> None:
        """Compute the bottoms of the head and of these scenes, and their tops too if a version is given."""
        wanted = list(dict.fromkeys(scenes))
        # One at a time: the last bits of a matrix product depend on its shape, and what a scene is must not depend on
        # what else was played before, or a resumed run would end elsewhere.
        for scene in (self._head, *wanted):
            if scene not in self._scenes:
                self._compute_bottom(scene)
            if version is not None and self._scenes[scene].version != version:
                self._compute_top(scene, version)
        for scene in (*wanted, self._head):
            self._scenes.move_to_end(scene)
        self._forget(len(wanted) + 1)

    @torch.inference_mode()
    def pool(self, scenes: Iterable[Ids], tops: bool = True) -> Pool:
        """Pack the head and these scenes, all prepared before."""
        parts = [self._head, *dict.fromkeys(scenes)]
        chosen = [self._scenes[part] for part in parts]
        stacks = [torch.cat([scene.bottom for scene in chosen], dim=3)]
        if tops:
            stacks.append(torch.cat([scene.top for scene in chosen if scene.top is not None], dim=3))
        ends = np.cumsum([len(part) for part in parts])
        places = {part: np.arange(end - len(part), end) for part, end in zip(parts, ends, strict=True)}
        cached = unstack(stacks[0], 0) | (unstack(stacks[1], self._trunk.first) if tops else {})
        return Pool(cached, int(ends[-1]), places)

    def _compute_bottom(self, scene: Ids) -> None:
        made: dict[int, KeyValues] = {}
        first = self._trunk.first
        hidden = self._trunk.run(self._trunk.embed(scene), 0, first, self._attended(scene, made))
        bottom = stack(made, range(first)) if first else hidden.new_zeros(0, 2, 1, len(scene), 1)
        self._scenes[scene] = Scene(hidden, bottom)

    def _compute_top(self, scene: Ids, version: str) -> None:
        made: dict[int, KeyValues] = {}
        kept, first, layers = self._scenes[scene], self._trunk.first, self._trunk.layers
        self._trunk.run(kept.hidden, first, layers, self._attended(scene, made))
        kept.top, kept.version = stack(made, range(first, layers)), version

    def _attended(self, scene: Ids, made: dict[int, KeyValues]) -> Attended:
        """The head attends to itself only; a scene to the head and itself."""
        head = self._scenes[self._head] if scene != self._head else None
        known = len(self._head) if head is not None else 0
        span = Span(len(scene), np.arange(known, known + len(scene)), np.arange(known), causal(len(scene)))
        cached: dict[int, KeyValues] = {}
        if head is not None:
            cached = unstack(head.bottom, 0)
            cached |= unstack(head.top, self._trunk.first) if head.top is not None else {}
        return Attended(self._trunk.layout([span], known), cached, made)

    def _forget(self, needed: int) -> None:
        """Drop what was used longest ago, but nothing that was asked for just now."""
        kept = sum(len(scene) for scene in self._scenes)
        while kept > TOKENS_KEPT and len(self._scenes) > needed:
            dropped, _ = self._scenes.popitem(last=False)
            kept -= len(dropped)
