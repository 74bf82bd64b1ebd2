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
    """What a model might say after a prefix: anything, but always the same."""
    return np.random.default_rng([7, *prefix]).normal(size=8) * 3


def walk(command: Command, everything: list[Command]) -> float:
    """Constrained decoding by hand: at each token, renormalise over the tokens that some command has there."""
    total = 0.0
    for n, token in enumerate(command):
        allowed = sorted({c[n] for c in everything if len(c) > n and c[:n] == command[:n]})
        logits = node_logits(command[:n])
        total += logits[token] - np.log(np.exp(logits[allowed]).sum())
    return total


def tree_log_probs(tree: ActionTree) -> np.ndarray:
    """The same from the flat arrays."""
    prefixes: list[Command] = []
    for token, parent in zip(tree.tokens.tolist(), tree.parents.tolist(), strict=True):
        prefixes.append(((*prefixes[parent],) if parent != ROOT else ()) + (token,))
    chosen = np.zeros(len(tree.choice_token))
    for node in dict.fromkeys(tree.choice_node.tolist()):
        logits = node_logits(() if node == ROOT else prefixes[node])
        here = tree.choice_node == node
        tokens = tree.choice_token[here]
        chosen[here] = logits[tokens] - np.log(np.exp(logits[tokens]).sum())
    return np.asarray(tree.uses @ chosen)


@given(commands)
def test_the_tree_gives_the_probabilities_of_walking_it(texts: list[Command]) -> None:
    ended = [(*text, END) for text in texts]
    found = tree_log_probs(ActionTree.build(ended))
    assert np.allclose(found, [walk(command, ended) for command in ended])
    assert np.isclose(np.exp(found).sum(), 1.0)


@given(commands)
def test_only_tokens_that_lead_to_a_choice_are_read(texts: list[Command]) -> None:
    tree = ActionTree.build([(*text, END) for text in texts])
    deciding = set(tree.choice_node.tolist())
    sees = tree.ancestors()
    for node in range(len(tree.tokens)):
        assert any(sees[choice, node] for choice in deciding if choice != ROOT)


def test_an_only_command_costs_nothing() -> None:
    tree = ActionTree.build([(3, 4, END)])
    assert len(tree.tokens) == 0
    assert tree_log_probs(tree).tolist() == [0.0]


@pytest.mark.parametrize("bad", [[], [()], [(1, END), (1, END)], [(1, 2), (1, 2, 3)]])
def test_ambiguous_commands_are_refused(bad: list[Command]) -> None:
    with pytest.raises(GameError):
        ActionTree.build(bad)


def test_a_node_sees_exactly_the_beginnings_of_its_path() -> None:
    tree = ActionTree.build([(1, 2, 3, END), (1, 2, 4, END), (1, 5, END), (6, 7, END), (6, 8, END)])
    assert tree.tokens.tolist() == [1, 6, 2]
    assert tree.depths.tolist() == [1, 1, 2]
    assert tree.ancestors().tolist() == [[True, False, False], [False, True, False], [True, False, True]]
