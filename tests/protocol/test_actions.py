from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.protocol.actions import ROOT, ActionTree
from fedoel.protocol.errors import GameError

END = 0
Command = tuple[int, ...]
commands = st.lists(
    st.lists(st.integers(1, 6), min_size=1, max_size=5).map(tuple), min_size=1, max_size=12, unique=True
)


def node_logits(prefix: Command) -> np.ndarray:
    """Random logits, a function of the prefix."""
    return np.random.default_rng([7, *prefix]).normal(size=8) * 3


def log_p(token: int, prefix: Command) -> float:
    logits = node_logits(prefix)
    return float(logits[token] - np.logaddexp.reduce(logits))


def scored_separately(everything: list[Command]) -> np.ndarray:
    """Score each command separately, its end token only where another command continues, and normalise."""
    scores = []
    for command in everything:
        body = command[:-1]
        continued = any(other != command and other[: len(body)] == body for other in everything)
        scores.append(sum(log_p(token, command[:n]) for n, token in enumerate(command if continued else body)))
    return np.asarray(scores - np.logaddexp.reduce(scores))


def tree_log_probs(tree: ActionTree) -> np.ndarray:
    """The same log-probabilities from the flat arrays."""
    prefixes: list[Command] = []
    for token, parent in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
        prefixes.append(((*prefixes[parent],) if parent != ROOT else ()) + (token,))
    chosen = [
        log_p(token, () if node == ROOT else prefixes[node])
        for node, token in zip(tree.choice_node.tolist(), tree.choice_token.tolist(), strict=True)
    ]
    scores = tree.uses @ np.asarray(chosen)
    return np.asarray(scores - np.logaddexp.reduce(scores))


@given(commands)
def test_the_tree_gives_the_probabilities_of_scoring_each_command(texts: list[Command]) -> None:
    ended = [(*text, END) for text in texts]
    assert np.allclose(tree_log_probs(ActionTree.build(ended)), scored_separately(ended))


@given(commands)
def test_every_command_ends_in_a_node_of_its_own_behind_those_that_score(texts: list[Command]) -> None:
    ended = [(*text, END) for text in texts]
    tree = ActionTree.build(ended)
    whole, last = tree.with_last_tokens(ended)
    count = len(tree.tokens)
    assert np.array_equal(whole.tokens[:count], tree.tokens) and np.array_equal(whole.parents[:count], tree.parents)
    assert not whole.ancestors()[:count, count:].any()
    for text, node in zip(texts, last.tolist(), strict=True):
        path: list[int] = []
        while node != ROOT:
            path.insert(0, int(whole.tokens[node]))
            assert whole.depths[node] == (1 if whole.parents[node] == ROOT else whole.depths[whole.parents[node]] + 1)
            node = int(whole.parents[node])
        assert tuple(path) == tuple(text)


@given(commands)
def test_nodes_are_the_tokens_with_a_successor_without_duplicates(texts: list[Command]) -> None:
    tree = ActionTree.build([(*text, END) for text in texts])
    nodes = np.arange(len(tree.tokens))
    assert np.isin(nodes, tree.choice_node).all()
    assert (tree.parents < nodes).all()
    pairs = list(zip(tree.parents.tolist(), tree.tokens.tolist(), strict=True))
    assert len(set(pairs)) == len(pairs)


def test_a_single_command_needs_no_forward_pass() -> None:
    tree = ActionTree.build([(3, 4, END)])
    assert len(tree.tokens) == 0
    assert tree_log_probs(tree).tolist() == [0.0]


@pytest.mark.parametrize("bad", [[], [()], [(1, END), (1, END)], [(1, 2), (1, 2, 3)]])
def test_ambiguous_commands_are_refused(bad: list[Command]) -> None:
    with pytest.raises(GameError):
        ActionTree.build(bad)


def test_a_node_attends_to_its_ancestors_only() -> None:
    tree = ActionTree.build([(1, 2, 3, END), (1, 2, 4, END), (1, 5, END), (6, 7, END), (8, END)])
    assert tree.tokens.tolist() == [1, 6, 2]
    assert tree.depths.tolist() == [1, 1, 2]
    assert tree.ancestors().tolist() == [[True, False, False], [False, True, False], [True, False, True]]
