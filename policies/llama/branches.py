"""Rows in llama.cpp's cache: one sequence per leaf of a command tree, as in its tree-based speculative decoding.

A *branch* is the sequence of one leaf. It shares the cells of the scene's prefix sequence. The moment belongs to all
branches of its row, a node to those of the leaves below it. A token attends to earlier tokens of its sequences, and so
to its own ancestors only. Branches are dropped when their logits have been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ...protocol.actions import ROOT
from ...protocol.errors import ModelError
from ..tokens import Ids, TokenizedSituation
from .library import SEQUENCES, LlamaContext, Tokens
from .prefix_cache import PREFIX_SEQUENCES, PrefixCache

BRANCHES = range(PREFIX_SEQUENCES.stop, SEQUENCES)


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
