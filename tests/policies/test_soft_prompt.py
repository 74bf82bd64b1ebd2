"""Policies with a soft prompt, and their gradients, from which the prefix codec encodes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs.encoder import load_encoder
from fedoel.codecs.prefix import DIMENSION, SPACE, START, VIRTUAL_TOKENS
from fedoel.codecs.tactics.coordinates import DIMENSION as TACTICS
from fedoel.codecs.tactics.coordinates import advice, tactic_name
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.policies.spaces import SoftPrompt
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.policies.torch.soft_prompt import SoftPromptPolicy
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory

ENCODER = load_encoder("prefix")
ROOMS = ("-= Hall =-\nYou are in a hall. There is a coin.", "-= Cellar =-\nA dark cellar.")


@pytest.fixture
def policy(tiny_base: Path, tmp_path: Path) -> TorchPolicy:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=2, lora_rank=4)
    model = TorchModel(load_base(config, tmp_path), 64)
    rng = np.random.default_rng(0)
    adapter = {name: rng.normal(0, 0.2, array.shape).astype(np.float32) for name, array in model.fresh.items()}
    return TorchPolicy(model, adapter)


def turns(count: int = 4) -> list[Turn]:
    commands = ("go east", "take coin", "take coin from shelf", "look")
    memory, made = Memory("Take the coin.", 9), []
    for number in range(count):
        situation = memory.see(ROOMS[number % 2], commands[: 2 + number % 3], number)
        memory.do(commands[number % 2])
        uniform = np.full(len(situation.admissible), -np.log(len(situation.admissible)), np.float32)
        made.append(Turn(situation, uniform, number % len(situation.admissible), 0.0))
    return made


def weights(seed: int, size: float = 0.5) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, size, DIMENSION).astype(np.float32)


def behind(policy: TorchPolicy, context: np.ndarray) -> SoftPromptPolicy:
    prompted = ENCODER.apply_context(policy, context)
    assert isinstance(prompted, SoftPromptPolicy)
    return prompted


def said(policy: TorchPolicy, context: np.ndarray, turn: Turn) -> float:
    return float(behind(policy, context).score([turn.situation])[0][turn.action])


def test_a_context_changes_scores_and_leaves_the_bare_policy_unchanged(policy: TorchPolicy) -> None:
    situations = [turn.situation for turn in turns()]
    before = policy.score(situations)
    one, two = (behind(policy, weights(seed)).score(situations) for seed in (1, 2))
    assert all(np.isclose(np.exp(answer).sum(), 1, atol=1e-5) for answer in one)
    assert max(np.abs(a - b).max() for a, b in zip(one, two, strict=True)) > 1e-3
    for answer, again in zip(before, policy.score(situations), strict=True):
        assert np.array_equal(answer, again)


def test_gradients_are_those_of_finite_differences(policy: TorchPolicy) -> None:
    context, step = weights(1), 0.003
    found = behind(policy, context).gradients(turns())
    assert found.shape == (4, DIMENSION)
    assert np.linalg.norm(found, axis=1).max() > 1e-3
    steepest = found / np.linalg.norm(found, axis=1, keepdims=True)
    for turn, gradient, way in zip(turns(), found, steepest, strict=True):
        up, down = said(policy, context + step * way, turn), said(policy, context - step * way, turn)
        assert (up - down) / (2 * step) == pytest.approx(np.linalg.norm(gradient), rel=0.02, abs=1e-3)


def test_gradients_do_not_depend_on_the_rest_of_the_batch(policy: TorchPolicy) -> None:
    prompted, all_turns = behind(policy, weights(3)), turns(40)
    together = prompted.gradients(all_turns)
    for number in (0, 7, 39):
        assert np.allclose(prompted.gradients([all_turns[number]])[0], together[number], rtol=1e-3, atol=1e-3)
    assert prompted.gradients([]).shape == (0, DIMENSION)


def test_the_score_function_has_mean_zero_under_the_policy(policy: TorchPolicy) -> None:
    prompted, turn = behind(policy, weights(4)), turns(3)[2]
    probs = np.exp(prompted.score([turn.situation])[0])
    every = [Turn(turn.situation, turn.log_probs, action, 0.0) for action in range(len(probs))]
    assert np.abs(probs @ prompted.gradients(every)).max() < 1e-4


def test_equal_contexts_return_the_same_policy_and_cost_their_tokens(policy: TorchPolicy) -> None:
    situation = turns(1)[0].situation
    assert behind(policy, weights(5)) is behind(policy, weights(5))
    assert behind(policy, weights(5)).tokens([situation]) == [policy.tokens([situation])[0] + VIRTUAL_TOKENS]
    assert behind(policy, weights(5)).version == f"{policy.version}+context"


def test_the_gradient_is_weighted_by_advantages(policy: TorchPolicy) -> None:
    prompted, advantages = behind(policy, weights(6)), np.array([1.0, -2.0, 0.0, 0.5])
    gradient, fisher = ENCODER.gradient_and_fisher(prompted, turns(), advantages)
    each = prompted.gradients(turns()).astype(np.float64)
    assert np.allclose(gradient, (advantages[:, None] * each).sum(0), atol=1e-6)
    assert np.allclose(fisher, (each**2).sum(0))


@pytest.mark.parametrize("name", ["prefix", "tactics-text"])
def test_a_policy_without_a_prompt_is_refused(name: str) -> None:
    encoder = load_encoder(name)
    with pytest.raises(ConfigError, match=r"needs policy\.backend 'torch'"):
        encoder.apply_context(TacticsPolicy("v", np.zeros(TACTICS, np.float32)), np.ones(encoder.dimension, np.float32))


def test_advice_in_the_prompt_changes_scores(policy: TorchPolicy) -> None:
    spoken, situations = load_encoder("tactics-text"), [turn.situation for turn in turns()]
    context = np.zeros(TACTICS, np.float32)
    assert spoken.apply_context(policy, context) is policy
    context[[3, 40, 41]] = 2.0, -1.0, 0.1
    advised = spoken.apply_context(policy, context)
    words = advice(context)
    assert words.splitlines() == [
        "Advice from earlier games:",
        f"- do: {tactic_name(3)}".replace(" · ", ", "),
        f"- avoid: {tactic_name(40)}".replace(" · ", ", "),
    ]
    extra = len(policy.model.tokenizer.ids(words))
    assert advised.tokens(situations) == [tokens + extra for tokens in policy.tokens(situations)]
    changes = [np.abs(a - b).max() for a, b in zip(advised.score(situations), policy.score(situations), strict=True)]
    assert max(changes) > 1e-3
    assert spoken.apply_context(policy, context) is advised


def test_the_zero_soft_prompt_equals_its_start_text(policy: TorchPolicy) -> None:
    situations = [turn.situation for turn in turns()]
    start = policy.model.subspace(SPACE).start_nd
    words = policy.model.tokenizer.decode(policy.model.tokenizer.ids(START)[:VIRTUAL_TOKENS])
    assert len(start) == VIRTUAL_TOKENS
    virtual, real = (
        policy.behind(each).score(situations) for each in (SoftPrompt(SPACE, np.zeros(DIMENSION, np.float32)), words)
    )
    assert all(np.allclose(one, other, atol=1e-5) for one, other in zip(virtual, real, strict=True))


@given(st.integers(2, 64))
def test_directions_have_unit_norm_and_are_reproducible(hidden: int) -> None:
    drawn = SPACE.directions(hidden)
    assert drawn.shape == (DIMENSION, VIRTUAL_TOKENS, hidden)
    assert np.allclose(np.linalg.norm(drawn.reshape(DIMENSION, -1), axis=1), 1, atol=1e-5)
    assert np.array_equal(drawn, SPACE.directions(hidden))
