"""Reading on: texts behind cached segments, some tokens of each at a time, with what was read kept for the next.

Every policy of the torch backend can begin one: the bare one, one with a context in its prompt, one with a control
vector. What differs is the keys that rows attend to, and what happens on the way through the layers.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ..policy import LogProbs, Policy
from ..spans import Span, causal
from ..tokens import TokenizedSituation
from .model import TorchModel
from .scenes import Pool
from .segments import Attended, KeyValues
from .trunk import Trunk

Load = Callable[[], str]  # puts an adapter in place, and returns the name of its version
Forward = Callable[[torch.Tensor, Attended], torch.Tensor]
Places = NDArray[np.int64]


class Reading:
    """Some rows under way.

    Parameters
    ----------
    forward
        Takes packed embeddings through all layers.
    head
        Tokens of the head of the prompt; their keys come first in the pool.
    pool
        Keys of the head and of all rows' scenes.
    segment, length
        Keys and values of one more segment that every row attends to, and its length in tokens.
    """

    def __init__(
        self,
        trunk: Trunk,
        forward: Forward,
        head: int,
        rows: Sequence[TokenizedSituation],
        pool: Pool,
        segment: dict[int, KeyValues] | None = None,
        length: int = 0,
    ) -> None:
        self._trunk, self._forward, self._rows = trunk, forward, rows
        self._cached = joined(pool.cached, segment) if segment else pool.cached
        self._keys = pool.keys + length
        own = np.concatenate([np.arange(head), np.arange(pool.keys, self._keys)])
        self._contexts: list[Places] = [np.concatenate([own, pool.places[row.scene]]) for row in rows]
        self._read = [head + len(row.scene) for row in rows]

    def commands(self) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Read every moment and the tree behind it.

        Returns
        -------
        log_probs
            Of each row's commands, shape (A,) each.
        last
            What stands before the head at the end of each moment, normed, shape (hidden,) each.
        """
        spans = [
            row.packed(read, context) for row, read, context in zip(self._rows, self._read, self._contexts, strict=True)
        ]
        starts = np.cumsum([0, *(span.length for span in spans)])[:-1]
        top = self._through([token for row in self._rows for token in row.tokens], spans)
        for place, (row, start) in enumerate(zip(self._rows, starts, strict=True)):
            self._keep(place, int(start), len(row.moment))
        self._keys += sum(span.length for span in spans)
        ends = [start + len(row.moment) - 1 for row, start in zip(self._rows, starts, strict=True)]
        last = self._trunk.base.decoder.norm(top[torch.tensor(ends, device=top.device)])
        return self._trunk.log_probs(top, self._rows, starts.tolist()), list(last)

    def read(self, places: Sequence[int], texts: Sequence[Sequence[int]]) -> list[torch.Tensor]:
        """Read on in some rows; what stands before the head at each token, normed, shape (t, hidden) each."""
        spans = [
            Span(len(text), self._read[place] + np.arange(len(text)), self._contexts[place], causal(len(text)))
            for place, text in zip(places, texts, strict=True)
        ]
        lengths = [len(text) for text in texts]
        top = self._through([token for text in texts for token in text], spans)
        for place, start, length in zip(places, np.cumsum([0, *lengths])[:-1], lengths, strict=True):
            self._keep(place, int(start), length)
        self._keys += sum(lengths)
        return list(self._trunk.base.decoder.norm(top).split(lengths))

    def _through(self, tokens: Sequence[int], spans: Sequence[Span]) -> torch.Tensor:
        made: dict[int, KeyValues] = {}
        attended = Attended(self._trunk.layout(spans, self._keys), self._cached, made)
        top = self._forward(self._trunk.embed(tokens), attended)
        self._cached = joined(self._cached, made)
        return top

    def _keep(self, place: int, start: int, length: int) -> None:
        """Let a row attend to what it has just read, from now on."""
        new = np.arange(self._keys + start, self._keys + start + length)
        self._contexts[place] = np.concatenate([self._contexts[place], new])
        self._read[place] += length


def joined(one: dict[int, KeyValues], two: dict[int, KeyValues]) -> dict[int, KeyValues]:
    """Keys and values of two packed sets, the second behind the first."""
    if not one:
        return two
    return {
        layer: (torch.cat([keys, two[layer][0].to(keys)], dim=1), torch.cat([values, two[layer][1].to(values)], dim=1))
        for layer, (keys, values) in one.items()
    }


@runtime_checkable
class Readable(Policy, Protocol):
    """A policy of the torch backend."""

    @property
    def model(self) -> TorchModel:
        """The model that it shares with others."""
        ...

    def reading(self, rows: Sequence[TokenizedSituation]) -> AbstractContextManager[Reading]:
        """Begin to read some rows under its adapter and its context."""
        ...


@torch.inference_mode()
def score(policy: Readable, situations: Sequence[Situation]) -> list[LogProbs]:
    """Log-probabilities of each situation's admissible commands."""
    model, answers = policy.model, list[LogProbs]()
    for rows in model.chunks(model.tokenizer.encode(situations)):
        with policy.reading(rows) as reading:
            answers += [part.cpu().numpy() for part in reading.commands()[0]]
    return answers
