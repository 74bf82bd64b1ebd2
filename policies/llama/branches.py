"""Rows in llama.cpp's cache: a sequence for each leaf of an action tree, as llama.cpp decodes trees of drafts.

A *branch* shares the cells of a scene's home; the moment belongs to all branches of its row, a node to those of the
leaves below it. A token sees what lies before it in its sequences, and so its own ancestors only. Branches are dropped
when their logits have been read.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ...protocol.actions import ROOT
from ...protocol.errors import ModelError
from ..tokens import Ids, TokenizedSituation
from .library import SEQUENCES, LlamaContext, Tokens
from .prefixes import HOMES, Prefixes

BRANCHES = range(HOMES.stop, SEQUENCES)


@contextmanager
def branched(context: LlamaContext, prefixes: Prefixes, rows: Sequence[TokenizedSituation]) -> Iterator[Tokens]:
    """Branch off prepared scenes; give the rows' tokens, one row after the other, and drop the branches in the end."""
    first, parts = BRANCHES.start, list[Tokens]()
    try:
        for row in rows:
            leaves = range(first, first + leaf_count(row))
            first = leaves.stop
            for leaf in leaves:
                context.share(prefixes.home(row.scene), leaf)
            parts.append(_tokens(row, prefixes.length(row.scene), leaves))
        yield Tokens.joined(parts)
    finally:
        for leaf in range(BRANCHES.start, first):
            context.drop(leaf)


def _tokens(row: TokenizedSituation, start: int, leaves: range) -> Tokens:
    moment = len(row.moment)
    asked = np.zeros(moment + len(row.tree.tokens), dtype=bool)
    asked[moment + row.tree.choice_node] = True
    below = [tuple(leaves[leaf] for leaf in own) for own in leaves_below(row)]
    sequences = [tuple(leaves)] * moment + below
    return Tokens(np.array(row.tokens, np.int32), row.positions(start).astype(np.int32), sequences, asked)


def leaf_count(row: TokenizedSituation) -> int:
    """Leaves of a row's tree; one where it has no nodes, for the moment."""
    return max(1, len(_leaves(row)))


def leaves_below(row: TokenizedSituation) -> list[list[int]]:
    """For each node the leaves below it, or itself if it is one; they are numbered in their order."""
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


def rounds(rows: Sequence[TokenizedSituation], cells: int) -> Iterator[list[TokenizedSituation]]:
    """Cut rows, in their order, into batches that fit into the sequences there are and, scenes too, into `cells`.

    Raises
    ------
    ModelError
        If a row alone needs more sequences than there are.
    """
    batch, scenes, leaves, used = list[TokenizedSituation](), set[Ids](), 0, 0
    for row in rows:
        if leaf_count(row) > len(BRANCHES):
            raise ModelError(f"llama.cpp tells {len(BRANCHES)} commands apart, but a game offers {leaf_count(row)}")
        more = len(row.tokens) + (len(row.scene) if row.scene not in scenes else 0)
        full = len(scenes | {row.scene}) > len(HOMES) or leaves + leaf_count(row) > len(BRANCHES)
        if batch and (full or used + more > cells):
            yield batch
            batch, scenes, leaves, used = [], set(), 0, 0
            more = len(row.tokens) + len(row.scene)
        batch.append(row)
        scenes.add(row.scene)
        leaves, used = leaves + leaf_count(row), used + more
    if batch:
        yield batch
