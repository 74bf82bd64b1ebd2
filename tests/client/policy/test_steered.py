"""Policies with a control vector, and the hidden states that the steering codec is made of."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.client.encoders.encoder import load_encoder
from fedoel.client.policy.base import load_base
from fedoel.client.policy.steered import SteeredPolicy
from fedoel.client.policy.tactics_policy import TacticsPolicy
from fedoel.client.policy.tokens import whole_tree
from fedoel.client.policy.torch_policy import TorchModel, TorchPolicy
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation
from fedoel.protocol.steering import DIMENSION, directions, layer_of
from fedoel.protocol.tactics import DIMENSION as TACTICS

ENCODER = load_encoder("steering")
ZERO = np.zeros(DIMENSION, np.float32)


@pytest.fixture
def policy(tiny_base: Path, tmp_path: Path) -> TorchPolicy:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    return TorchPolicy(TorchModel(load_base(config, tmp_path), 64), {})


def situations() -> list[Situation]:
    commands = ("go east", "go east now", "take coin", "look")
    memory = Memory("Take the coin.", 9)
    first = memory.see("-= Hall =-\nYou are in a hall. There is a coin.", commands, 0)
    memory.do("look")
    return [first, memory.see("-= Cellar =-\nA dark cellar.", commands[1:], 1)]


def steered(policy: TorchPolicy, context: np.ndarray) -> SteeredPolicy:
    made = ENCODER.under(policy, context)
    assert isinstance(made, SteeredPolicy)
    return made


def test_no_vector_changes_nothing_and_a_long_one_much(policy: TorchPolicy) -> None:
    rng = np.random.default_rng(0)
    bare = policy.score(situations())
    for answer, same in zip(bare, steered(policy, ZERO).score(situations()), strict=True):
        assert np.allclose(answer, same, atol=1e-5)
    moved = steered(policy, rng.normal(0, 0.3, DIMENSION).astype(np.float32)).score(situations())
    assert max(np.abs(a - b).max() for a, b in zip(bare, moved, strict=True)) > 0.01
    assert all(np.isclose(np.exp(answer).sum(), 1, atol=1e-5) for answer in moved)
    for answer, again in zip(bare, policy.score(situations()), strict=True):
        assert np.array_equal(answer, again)


def test_features_belong_to_commands_and_not_to_their_company(policy: TorchPolicy) -> None:
    first, second = situations()
    together = steered(policy, ZERO).features([first, second])
    assert [features.shape for features in together] == [(4, DIMENSION), (3, DIMENSION)]
    assert np.allclose(steered(policy, ZERO).features([second])[0], together[1], atol=1e-5)
    assert np.linalg.matrix_rank(together[0] - together[0].mean(0)) == 3
    # They are read below the vector, so that a context does not change what they say.
    vector = np.full(DIMENSION, 0.2, np.float32)
    assert np.allclose(steered(policy, vector).features([first])[0], together[0], atol=1e-5)


def test_sums_compare_the_chosen_with_the_rejected(policy: TorchPolicy) -> None:
    situation, prompted = situations()[0], steered(policy, ZERO)
    log_probs = prompted.score([situation])[0]
    turns = [Turn(situation, log_probs, action, 0.0) for action in range(4)]
    probs, features = np.exp(log_probs.astype(np.float64)), prompted.features([situation])[0]
    scores = np.stack([ENCODER.sums(prompted, [turn], np.ones(1))[0] for turn in turns])
    assert np.abs(probs @ scores).max() < 1e-6
    assert np.allclose(ENCODER.sums(prompted, turns[:1], np.ones(1))[1], probs @ scores**2)
    assert np.allclose(scores[2] - scores[1], features[2] - features[1])
    gradient, _ = ENCODER.sums(prompted, turns[:2], np.array([2.0, -1.0]))
    assert np.allclose(gradient, 2 * scores[0] - scores[1])


def test_every_token_of_every_command_is_in_the_whole_tree() -> None:
    tree, ends = whole_tree([(1, 2), (1, 2, 3), (4,)])
    paths = []
    for end in ends:
        path, node = [], int(end)
        while node >= 0:
            path.append(int(tree.tokens[node]))
            node = int(tree.parents[node])
        paths.append(tuple(reversed(path)))
    assert paths == [(1, 2), (1, 2, 3), (4,)]
    assert tree.depths.tolist() == [1, 1, 2, 3]


def test_a_vector_is_added_between_layers() -> None:
    assert [layer_of(layers) for layers in (2, 4, 30)] == [1, 2, 18]
    assert np.allclose(np.linalg.norm(directions(8), axis=1), 1, atol=1e-6)


def test_a_policy_without_a_residual_stream_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs policy\.backend 'torch'"):
        ENCODER.under(TacticsPolicy("v", np.zeros(TACTICS, np.float32)), ZERO)
