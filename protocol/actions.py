"""The token tree of the admissible commands: exact probabilities of commands from one forward pass.

A command is as likely as the language model finds its text, among the commands there are:

    pi(a | x) = exp s(a) / sum_b exp s(b)        s(a) = sum over a's tokens of  log p(token | x, tokens before)

as in GLAM (Carta et al. 2023, arXiv 2302.02662), with p normalised over the tokens that the prompt or any of its
commands holds. Renormalising at every node of the tree over its children alone would be decoding without foresight:
"take" would have to be decided before it counts what there is to take. The model reads only tokens that something
follows, all of them in one pass, since each attends to its own ancestors only (a tree attention mask). The end of a
command counts only where another command goes on.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import GameError

Indices = NDArray[np.int64]
ROOT = -1


@dataclass(frozen=True, slots=True)
class ActionTree:
    """The tree in flat arrays. N nodes are read by the model, C choices are scored, A commands come out.

    Parameters
    ----------
    tokens, parents, depths
        Of the nodes to read, parents first, shape (N,). A parent of -1 is the end of the prompt; depths start at 1.
    choice_node
        The node whose logits score a choice, -1 for the end of the prompt, shape (C,); a node's choices are adjacent.
    choice_token
        The token that a choice appends, shape (C,).
    uses
        1 where a command's path goes through a choice, shape (A, C).
    """

    tokens: Indices
    parents: Indices
    depths: Indices
    choice_node: Indices
    choice_token: Indices
    uses: NDArray[np.float32]

    @classmethod
    def build(cls, commands: Sequence[Sequence[int]]) -> ActionTree:
        """Build the tree of tokenised commands.

        Parameters
        ----------
        commands
            Token ids of each command, each ending in the same end token, so that none is the beginning of another.

        Raises
        ------
        GameError
            If there are no commands, or two are the same or one begins another.
        """
        paths = [tuple(command) for command in commands]
        _check(paths)
        children = _children(paths)
        whole = set(paths)
        scored = {
            prefix
            for prefix, tokens in children.items()
            if len(paths) > 1 and (len(tokens) > 1 or (*prefix, tokens[0]) not in whole)
        }
        read = sorted(scored - {()}, key=lambda p: (len(p), p))
        index = {prefix: row for row, prefix in enumerate(read)} | {(): ROOT}
        choices = [(prefix, token) for prefix in sorted(scored, key=lambda p: index[p]) for token in children[prefix]]
        column = {choice: c for c, choice in enumerate(choices)}
        uses = np.zeros((len(paths), len(choices)), dtype=np.float32)
        for row, path in enumerate(paths):
            for n in range(len(path)):
                if path[:n] in scored:
                    uses[row, column[path[:n], path[n]]] = 1
        return cls(
            tokens=_indices(prefix[-1] for prefix in read),
            parents=_indices(index[prefix[:-1]] for prefix in read),
            depths=_indices(len(prefix) for prefix in read),
            choice_node=_indices(index[prefix] for prefix, _ in choices),
            choice_token=_indices(token for _, token in choices),
            uses=uses,
        )

    def ancestors(self) -> NDArray[np.bool_]:
        """Which node may attend to which, itself included, shape (N, N)."""
        sees = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                sees[node] |= sees[parent]
        return sees


def _children(paths: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Next tokens of every proper prefix, in ascending order."""
    children: dict[tuple[int, ...], set[int]] = {}
    for path in paths:
        for n, token in enumerate(path):
            children.setdefault(path[:n], set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}


def _check(paths: Sequence[tuple[int, ...]]) -> None:
    if not paths or not all(paths):
        raise GameError("a game offered no admissible command, or an empty one")
    whole = set(paths)
    if len(whole) < len(paths) or any(path[:n] in whole for path in paths for n in range(1, len(path))):
        raise GameError("two admissible commands are the same, or one begins another without an end token")


def _indices(values: object) -> Indices:
    return np.fromiter(values, dtype=np.int64)  # type: ignore[call-overload, no-any-return]
