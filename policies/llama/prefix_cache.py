"""llama.cpp's key-value cache: the head stays, scenes stay until their cells are needed, rows until they are read.

A cached scene is a *prefix sequence* of llama.cpp: it begins with the head's cells and goes on with the scene's own. A
row has one sequence per leaf of its command tree, a *branch*, as in llama.cpp's tree-based speculative decoding. A
branch shares the cells of the scene's prefix sequence. The moment belongs to all branches of its row, a node to those
of the leaves below it. A token attends to earlier tokens of its sequences, and so to its own ancestors only. Branches
are dropped when their logits have been read.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ...protocol.actions import ROOT
from ...protocol.errors import ModelError
from ..tokens import Ids, TokenizedSituation
from .library import SEQUENCES, LlamaContext, Tokens

HEAD_SEQUENCE = 0
PREFIX_SEQUENCES = range(1, 65)
BRANCHES = range(PREFIX_SEQUENCES.stop, SEQUENCES)
NO_COLUMNS = np.zeros(0, dtype=np.int64)


class PrefixCache:
    """The head and the scenes in the cache of one context.

    Parameters
    ----------
    head
        Token ids of the head of all prompts.
    """

    def __init__(self, context: LlamaContext, head: Ids) -> None:
        self._context, self._head = context, head
        self._sequences: OrderedDict[Ids, int] = OrderedDict()
        self._has_head = False

    def clear(self) -> None:
        """Empty the cache, as when another adapter is loaded."""
        self._context.clear()
        self._sequences.clear()
        self._has_head = False

    def sequence(self, scene: Ids) -> int:
        """Prefix sequence of a prepared scene."""
        return self._sequences[scene]

    def length(self, scene: Ids) -> int:
        """Number of tokens of head and scene."""
        return len(self._head) + len(scene)

    def prepare(self, scenes: Iterable[Ids], room: int) -> None:
        """Evaluate the scenes that are not cached, and leave `room` cells free."""
        wanted = list(dict.fromkeys(scenes))
        missing = [scene for scene in wanted if scene not in self._sequences]
        for scene in wanted:
            if scene in self._sequences:
                self._sequences.move_to_end(scene)
        self._evict(missing, room, len(wanted) - len(missing))
        if not self._has_head:
            self._evaluate([(HEAD_SEQUENCE, 0, self._head)])
            self._has_head = True
        cached, free = dict(self._sequences), sorted(set(PREFIX_SEQUENCES) - set(self._sequences.values()))
        for scene, sequence in zip(missing, free, strict=False):
            self._sequences[scene] = sequence
        self._evaluate([self._share_prefix(scene, cached) for scene in missing])

    def _evict(self, missing: Sequence[Ids], room: int, needed: int) -> None:
        """Drop the least recently used scenes, but none of the `needed` last ones; shared cells count twice."""
        cells = self._context.cells - room - len(self._head) - sum(map(len, missing))
        used = sum(map(len, self._sequences))
        most = len(PREFIX_SEQUENCES) - len(missing)
        while len(self._sequences) > needed and (used > cells or len(self._sequences) > most):
            scene, sequence = self._sequences.popitem(last=False)
            self._context.drop(sequence)
            used -= len(scene)

    def _share_prefix(self, scene: Ids, cached: dict[Ids, int]) -> tuple[int, int, Ids]:
        """Share the longest common prefix with a cached scene, such as the goal; return what is left to evaluate.

        Returns
        -------
        sequence, start, tokens
            The scene's sequence, the position of its first token to evaluate, and the tokens from there on.
        """
        nearest = max(cached, key=lambda other: shared_length(other, scene), default=())
        shared = shared_length(nearest, scene)
        shared -= shared == len(scene)  # a scene that is a prefix of another still needs a token to evaluate
        start = len(self._head) + shared
        self._context.share(cached[nearest] if shared else HEAD_SEQUENCE, self._sequences[scene], start)
        return self._sequences[scene], start, scene[shared:]

    def _evaluate(self, texts: Sequence[tuple[int, int, Ids]]) -> None:
        """Evaluate token ids, each text in its sequence from its start position on."""
        ids = [token for _, _, text in texts for token in text]
        positions = [start + offset for _, start, text in texts for offset in range(len(text))]
        sequences = [(sequence,) for sequence, _, text in texts for _ in text]
        no_logits = np.zeros(len(ids), dtype=bool)
        tokens = Tokens(np.array(ids, np.int32), np.array(positions, np.int32), sequences, no_logits)
        self._context.decode(tokens, NO_COLUMNS)


def shared_length(first: Ids, second: Ids) -> int:
    """Number of tokens of the longest common prefix."""
    shortest = min(len(first), len(second))
    return next((index for index in range(shortest) if first[index] != second[index]), shortest)


@contextmanager
def branched(context: LlamaContext, prefix_cache: PrefixCache, rows: Sequence[TokenizedSituation]) -> Iterator[Tokens]:
    """Make the rows' branches behind prepared scenes, yield their tokens as one batch, and drop the branches."""
    first, parts = BRANCHES.start, list[Tokens]()
    try:
        for row in rows:
            leaves = range(first, first + leaf_count(row))
            first = leaves.stop
            for leaf in leaves:
                context.share(prefix_cache.sequence(row.scene), leaf)
            parts.append(_tokens(row, prefix_cache.length(row.scene), leaves))
        yield Tokens.joined(parts)
    finally:
        for leaf in range(BRANCHES.start, first):
            context.drop(leaf)


def _tokens(row: TokenizedSituation, start: int, leaves: range) -> Tokens:
    moment = len(row.moment)
    wants_logits = np.zeros(moment + len(row.tree.tokens), dtype=bool)
    wants_logits[moment + row.tree.choice_node] = True
    node_sequences = [tuple(leaves[leaf] for leaf in below) for below in leaves_below(row)]
    sequences = [tuple(leaves)] * moment + node_sequences
    return Tokens(np.array(row.tokens, np.int32), row.positions(start).astype(np.int32), sequences, wants_logits)


def leaf_count(row: TokenizedSituation) -> int:
    """Number of leaves of a row's command tree; 1 for a tree without nodes, whose branch is the moment."""
    return max(1, len(_leaves(row)))


def leaves_below(row: TokenizedSituation) -> list[list[int]]:
    """For each node the numbers of the leaves below it, or its own number if it is a leaf."""
    parents = row.tree.parents.tolist()
    below: list[list[int]] = [[] for _ in parents]
    for number, node in enumerate(_leaves(row)):
        while node != ROOT:
            below[node].append(number)
            node = parents[node]
    return below


def _leaves(row: TokenizedSituation) -> list[int]:
    parents = row.tree.parents.tolist()
    return sorted(set(range(len(parents))) - set(parents))


def fitting_batches(rows: Sequence[TokenizedSituation], cells: int) -> Iterator[list[TokenizedSituation]]:
    """Cut rows, in their order, into batches that fit, with their scenes, into the sequences and into `cells`.

    Raises
    ------
    ModelError
        If a single row needs more sequences than llama.cpp has.
    """
    batch, scenes, leaves, used = list[TokenizedSituation](), set[Ids](), 0, 0
    for row in rows:
        if leaf_count(row) > len(BRANCHES):
            raise ModelError(f"llama.cpp tells {len(BRANCHES)} commands apart, but a game offers {leaf_count(row)}")
        more = len(row.tokens) + (len(row.scene) if row.scene not in scenes else 0)
        full = len(scenes | {row.scene}) > len(PREFIX_SEQUENCES) or leaves + leaf_count(row) > len(BRANCHES)
        if batch and (full or used + more > cells):
            yield batch
            batch, scenes, leaves, used = [], set(), 0, 0
            more = len(row.tokens) + len(row.scene)
        batch.append(row)
        scenes.add(row.scene)
        leaves, used = leaves + leaf_count(row), used + more
    if batch:
        yield batch
