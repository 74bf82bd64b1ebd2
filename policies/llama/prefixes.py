"""What of prompts stays in llama.cpp's cache: the head for ever, scenes until others need their place.

A kept scene is a *home*: a sequence that begins with the head's cells and goes on with the scene's own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence

import numpy as np

from ..tokens import Ids
from .library import LlamaContext, Tokens

HEAD = 0
HOMES = range(1, 65)
NOTHING = np.zeros(0, dtype=np.int64)


class Prefixes:
    """The head and the scenes in one context's cache.

    Parameters
    ----------
    head
        What all prompts begin with.
    """

    def __init__(self, context: LlamaContext, head: Ids) -> None:
        self._context, self._head = context, head
        self._homes: OrderedDict[Ids, int] = OrderedDict()
        self._has_head = False

    def clear(self) -> None:
        """Forget everything, as when another adapter is put in place."""
        self._context.clear()
        self._homes.clear()
        self._has_head = False

    def home(self, scene: Ids) -> int:
        """Sequence of a scene that is prepared."""
        return self._homes[scene]

    def length(self, scene: Ids) -> int:
        """Tokens of the head and a scene."""
        return len(self._head) + len(scene)

    def prepare(self, scenes: Iterable[Ids], room: int) -> None:
        """Evaluate the scenes that are not kept, and leave `room` cells free."""
        wanted = list(dict.fromkeys(scenes))
        missing = [scene for scene in wanted if scene not in self._homes]
        for scene in wanted:
            if scene in self._homes:
                self._homes.move_to_end(scene)
        self._make_room(missing, room, len(wanted) - len(missing))
        if not self._has_head:
            self._evaluate([(HEAD, 0, self._head)])
            self._has_head = True
        kept, free = dict(self._homes), sorted(set(HOMES) - set(self._homes.values()))
        for scene, sequence in zip(missing, free, strict=False):
            self._homes[scene] = sequence
        self._evaluate([self._begin(scene, kept) for scene in missing])

    def _make_room(self, missing: Sequence[Ids], room: int, needed: int) -> None:
        """Drop what was used longest ago, but nothing that is needed now; shared cells are counted twice."""
        cells = self._context.cells - room - len(self._head) - sum(map(len, missing))
        used = sum(map(len, self._homes))
        while len(self._homes) > needed and (used > cells or len(self._homes) + len(missing) > len(HOMES)):
            scene, sequence = self._homes.popitem(last=False)
            self._context.drop(sequence)
            used -= len(scene)

    def _begin(self, scene: Ids, kept: dict[Ids, int]) -> tuple[int, int, Ids]:
        """Share what a kept scene has in common with this one, such as the goal; say what is left, and from where."""
        like = max(kept, key=lambda other: in_common(other, scene), default=())
        known = in_common(like, scene)
        known -= known == len(scene)  # a scene that only begins another still needs something to evaluate
        start = len(self._head) + known
        self._context.share(kept[like] if known else HEAD, self._homes[scene], start)
        return self._homes[scene], start, scene[known:]

    def _evaluate(self, texts: Sequence[tuple[int, int, Ids]]) -> None:
        """Evaluate texts, each in a sequence from a position on."""
        ids = [token for _, _, text in texts for token in text]
        positions = [start + place for _, start, text in texts for place in range(len(text))]
        sequences = [(sequence,) for sequence, _, text in texts for _ in text]
        asked = np.zeros(len(ids), dtype=bool)
        self._context.decode(Tokens(np.array(ids, np.int32), np.array(positions, np.int32), sequences, asked), NOTHING)


def in_common(first: Ids, second: Ids) -> int:
    """How many tokens two texts begin with alike."""
    shortest = min(len(first), len(second))
    return next((place for place in range(shortest) if first[place] != second[place]), shortest)
