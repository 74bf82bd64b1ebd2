"""The token tree of the admissible commands: exact probabilities of commands from one forward pass.

The probability of a command is the language model's probability of its text, normalised over the admissible commands:

    pi(a | x) = exp s(a) / sum_b exp s(b)        s(a) = sum over a's tokens of  log p(token | x, tokens before)

as in GLAM (Carta et al. 2023, arXiv 2302.02662), with p normalised over the tokens that occur in the prompt or in any
of its commands. Normalising at every node of the tree over its children instead would be greedy: the probability of
"take" would not depend on what can be taken. Only tokens with a successor are input to the model, all in one pass with
a tree attention mask: each attends to its ancestors only. A command's end token is scored only where another command
continues at the same node.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .errors import GameError

Indices = NDArray[np.int64]
ROOT = -1


@dataclass(frozen=True, slots=True)
class ActionTree:
    """The tree in flat arrays, for N nodes (input tokens), C choices (scored tokens) and A commands.

    Parameters
    ----------
    tokens, parents, depths
        Token id, parent node and depth of each node, shape (N,), parents before children. Parent -1 is the end of the
        prompt; depths start at 1.
    choice_node
        Node whose logits score each choice, -1 for the end of the prompt, shape (C,). A node's choices are adjacent.
    choice_token
        Token id that each choice appends, shape (C,).
    uses
        1 where the path of a command contains a choice, else 0, shape (A, C).
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
            Token ids of each command. All end in the same end token, so that no command is a prefix of another.

        Raises
        ------
        GameError
            If there are no commands, or one equals another or is a prefix of it.
        """
        paths = [tuple(command) for command in commands]
        _check(paths)
        children = _children(paths)
        complete = set(paths)
        scored = {
            prefix
            for prefix, tokens in children.items()
            if len(paths) > 1 and (len(tokens) > 1 or (*prefix, tokens[0]) not in complete)
        }
        nodes = sorted(scored - {()}, key=lambda prefix: (len(prefix), prefix))
        index = {prefix: node for node, prefix in enumerate(nodes)} | {(): ROOT}
        choices = [(prefix, token) for prefix in sorted(scored, key=index.__getitem__) for token in children[prefix]]
        column = {choice: c for c, choice in enumerate(choices)}
        uses = np.zeros((len(paths), len(choices)), dtype=np.float32)
        for row, path in enumerate(paths):
            for n in range(len(path)):
                if path[:n] in scored:
                    uses[row, column[path[:n], path[n]]] = 1
        return cls(
            tokens=_indices(prefix[-1] for prefix in nodes),
            parents=_indices(index[prefix[:-1]] for prefix in nodes),
            depths=_indices(len(prefix) for prefix in nodes),
            choice_node=_indices(index[prefix] for prefix, _ in choices),
            choice_token=_indices(token for _, token in choices),
            uses=uses,
        )

    def with_last_tokens(self, commands: Sequence[Sequence[int]]) -> tuple[ActionTree, Indices]:
        """Return the tree with each command's last token before its end token as a node, and the indices of these.

        The hidden state at that node has read the whole command. New nodes stand behind the tree's own, and no other
        node attends to them: what is computed at the tree's own nodes, and so the commands' scores, stays the same.

        Parameters
        ----------
        commands
            Those that the tree was built of.

        Returns
        -------
        ActionTree, array
            The larger tree, and the node of each command's last token, shape (A,).
        """
        prefixes: list[tuple[int, ...]] = []
        for token, parent in zip(self.tokens.tolist(), self.parents.tolist(), strict=True):
            prefixes.append((*(prefixes[parent] if parent != ROOT else ()), token))
        index = {(): ROOT} | {prefix: node for node, prefix in enumerate(prefixes)}
        paths = [tuple(command)[:-1] for command in commands]
        missing = {path[:n] for path in paths for n in range(1, len(path) + 1)} - index.keys()
        added = sorted(missing, key=lambda prefix: (len(prefix), prefix))
        index |= {prefix: len(self.tokens) + n for n, prefix in enumerate(added)}
        whole = replace(
            self,
            tokens=np.concatenate([self.tokens, _indices(prefix[-1] for prefix in added)]),
            parents=np.concatenate([self.parents, _indices(index[prefix[:-1]] for prefix in added)]),
            depths=np.concatenate([self.depths, _indices(len(prefix) for prefix in added)]),
        )
        return whole, _indices(index[path] for path in paths)

    def ancestors(self) -> NDArray[np.bool_]:
        """Return the attention mask, shape (N, N): row i is True at node i and its ancestors."""
        mask = np.eye(len(self.tokens), dtype=bool)
        for node, parent in enumerate(self.parents):
            if parent != ROOT:
                mask[node] |= mask[parent]
        return mask


def _children(paths: Sequence[tuple[int, ...]]) -> dict[tuple[int, ...], list[int]]:
    """Return the next tokens, ascending, of every proper prefix of a path."""
    children: dict[tuple[int, ...], set[int]] = {}
    for path in paths:
        for n, token in enumerate(path):
            children.setdefault(path[:n], set()).add(token)
    return {prefix: sorted(tokens) for prefix, tokens in children.items()}


def _check(paths: Sequence[tuple[int, ...]]) -> None:
    if not paths or not all(paths):
        raise GameError("a game offered no admissible command, or an empty one")
    complete = set(paths)
    if len(complete) < len(paths) or any(path[:n] in complete for path in paths for n in range(1, len(path))):
        raise GameError("two admissible commands are the same, or one begins another without an end token")


def _indices(values: object) -> Indices:
    return np.fromiter(values, dtype=np.int64)  # type: ignore[call-overload, no-any-return]
