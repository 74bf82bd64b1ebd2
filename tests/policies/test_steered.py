"""Policies with control vectors, and the score gradients from which the steering codec encodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.encoder import load_encoder
from fedoel.codecs.steering import BLOCKS, COORDINATES, DEPTHS, DIMENSION, SCALE, SPACE
from fedoel.codecs.tactics.coordinates import DIMENSION as TACTICS
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.policies.torch.steered import SteeredPolicy
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation

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
    made = ENCODER.apply_context(policy, context)
    assert isinstance(made, SteeredPolicy)
    return made


def test_the_zero_vector_changes_nothing_and_a_long_one_much(policy: TorchPolicy) -> None:
    rng = np.random.default_rng(0)
    bare = policy.score(situations())
    for answer, same in zip(bare, steered(policy, ZERO).score(situations()), strict=True):
        assert np.allclose(answer, same, atol=1e-5)
    moved = steered(policy, rng.normal(0, 0.3, DIMENSION).astype(np.float32)).score(situations())
    assert max(np.abs(a - b).max() for a, b in zip(bare, moved, strict=True)) > 0.01
    assert all(np.isclose(np.exp(answer).sum(), 1, atol=1e-5) for answer in moved)
    for answer, again in zip(bare, policy.score(situations()), strict=True):
        assert np.array_equal(answer, again)


def test_features_do_not_depend_on_the_rest_of_the_batch(policy: TorchPolicy) -> None:
    first, second = situations()
    together = steered(policy, ZERO).features([first, second])
    assert [features.shape for features in together] == [(4, DIMENSION), (3, DIMENSION)]
    assert np.allclose(steered(policy, ZERO).features([second])[0], together[1], atol=1e-5)
    assert np.linalg.matrix_rank(together[0] - together[0].mean(0)) == 3


@pytest.mark.parametrize("length", [0.0, 0.1])
def test_features_are_the_gradient_behind_the_last_layer_at_the_context_that_is_played(
    policy: TorchPolicy, length: float
) -> None:
    assert SPACE.layers(policy.model.trunk.layer_count)[-1] == policy.model.trunk.layer_count
    rng, situation = np.random.default_rng(1), situations()[0]
    last = list(BLOCKS.values())[-1]
    context, towards = np.zeros(DIMENSION, np.float32), np.zeros(DIMENSION, np.float32)
    context[last], towards[last] = length * rng.normal(size=COORDINATES), rng.normal(size=COORDINATES)
    played = steered(policy, context)
    features = played.features([situation])[0]
    probs = np.exp(played.score([situation])[0].astype(np.float64))
    after, before = (steered(policy, context + sign * 1e-2 * towards).score([situation])[0] for sign in (1, -1))
    expected = (features - probs @ features) @ towards
    assert np.abs(expected).max() > 1e-3
    slopes = (after.astype(np.float64) - before) / 2e-2
    # Lengths are those of what is read: with a vector in it, not quite those in which the vector is given.
    assert slopes @ expected > (1 - 1e-3) * np.linalg.norm(slopes) * np.linalg.norm(expected)
    assert np.allclose(slopes, expected, rtol=0.02 if not length else 0.2, atol=1e-3)


def test_a_single_command_has_zero_features(policy: TorchPolicy) -> None:
    alone = Memory("Take the coin.", 9).see("-= Hall =-\nA hall.", ("look",), 0)
    assert not steered(policy, ZERO).features([alone])[0].any()


def test_the_gradient_contrasts_the_given_command_with_the_alternatives(policy: TorchPolicy) -> None:
    situation, prompted = situations()[0], steered(policy, ZERO)
    log_probs = prompted.score([situation])[0]
    turns = [Turn(situation, log_probs, action, 0.0) for action in range(4)]
    probs, features = np.exp(log_probs.astype(np.float64)), prompted.features([situation])[0]
    scores = np.stack([ENCODER.gradient_and_fisher(prompted, [turn], np.ones(1))[0] for turn in turns])
    assert np.abs(probs @ scores).max() < 1e-6
    assert np.allclose(ENCODER.gradient_and_fisher(prompted, turns[:1], np.ones(1))[1], probs @ scores**2)
    assert np.allclose(scores[2] - scores[1], features[2] - features[1])
    gradient, _ = ENCODER.gradient_and_fisher(prompted, turns[:2], np.array([2.0, -1.0]))
    assert np.allclose(gradient, 2 * scores[0] - scores[1])


def test_vectors_are_added_between_layers_each_with_its_own_directions(policy: TorchPolicy) -> None:
    assert [SPACE.layers(layers) for layers in (1, 4, 30)] == [(1, 1, 1), (3, 4, 4), (24, 27, 30)]
    drawn = SPACE.directions(8)
    assert drawn.shape == (len(DEPTHS), COORDINATES, 8)
    assert np.allclose(np.linalg.norm(drawn, axis=2), SCALE, atol=1e-6)
    assert not np.allclose(drawn[0], drawn[1], atol=0.01)
    found = list(BLOCKS.values())
    assert [place for part in found for place in range(DIMENSION)[part]] == list(range(DIMENSION))
    for part in found:
        alone = ZERO.copy()
        alone[part] = 0.5
        bare, moved = policy.score(situations()[:1])[0], steered(policy, alone).score(situations()[:1])[0]
        assert np.abs(bare - moved).max() > 0.01


def test_a_policy_without_a_residual_stream_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"needs policy\.backend 'torch'"):
        ENCODER.apply_context(TacticsPolicy("v", np.zeros(TACTICS, np.float32)), ZERO)
