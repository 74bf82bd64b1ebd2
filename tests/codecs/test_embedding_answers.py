"""The codec `embedding` in free decoding: its alternatives are answers that the policy samples."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.embedding.encoder import EmbeddingEncoder
from fedoel.codecs.embedding.policy import RewardTiltedPolicy
from fedoel.codecs.embedding.whitening import FARTHEST, Whitening
from fedoel.codecs.encoder import encode
from fedoel.games.player import play_episodes
from fedoel.policies.abilities import speaker
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.free import Decoding, FreePolicy
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.experience import VectorSpec
from fedoel.protocol.play import GameSpec
from fedoel.protocol.prompts import Style
from fedoel.protocol.situation import Situation

from .test_embedding import situations

DIMENSION = 8
GAME = GameSpec.parse("tidy things=2 open=1 turns=4")


@pytest.fixture
def policy(tiny_base: Path, tmp_path: Path) -> FreePolicy:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=1, lora_rank=4)
    model = TorchModel(load_base(config, tmp_path), 512, Style(free=True, listed=False))
    return FreePolicy(TorchPolicy(model, {}), Decoding(1.0, 3, alternatives=4))


def tilted(policy: FreePolicy, scale: float) -> RewardTiltedPolicy:
    whitening = Whitening.fit(policy.embed(situations()), DIMENSION)
    weights = np.random.default_rng(3).normal(0, scale, DIMENSION).astype(np.float32)
    return EmbeddingEncoder(dimension=DIMENSION, whitening=whitening).apply_context(policy, weights)


def asked(count: int = 6) -> list[tuple[Situation, np.random.Generator]]:
    return [(situation, np.random.default_rng(n)) for n, situation in enumerate(situations(count))]


def test_samples_are_what_a_situation_alone_would_give(policy: FreePolicy) -> None:
    together = policy.sample(asked())
    alone = [policy.sample([one])[0] for one in asked()]
    assert [[a.tokens for a in some] for some in together] == [[a.tokens for a in some] for some in alone]
    assert all(len(some) == 4 for some in together)
    assert len({answer.tokens for some in together for answer in some}) > 12  # copies of a row draw for themselves


def test_without_a_context_log_probabilities_are_the_shares_of_the_samples(policy: FreePolicy) -> None:
    context = tilted(policy, 0.0)
    assert speaker(context) is not None
    for answer, some in zip(context.respond(asked()), policy.sample(asked()), strict=True):
        commands = [sample.command for sample in some]
        assert set(answer.alternatives) == set(commands) and answer.command in commands
        shares = [commands.count(command) / len(commands) for command in answer.alternatives]
        assert np.allclose(np.exp(answer.log_probs), shares, atol=1e-6)


def test_a_context_gives_the_answers_that_it_rewards(policy: FreePolicy) -> None:
    context = tilted(policy, 500.0)
    for answer, (situation, _) in zip(context.respond(asked()), asked(), strict=True):
        rewards = context.rewards([replace(situation, alternatives=answer.alternatives)])[0]
        assert answer.command == answer.alternatives[int(np.argmax(rewards))]
        assert float(np.exp(answer.log_probs).sum()) == pytest.approx(1, abs=1e-5)


def test_played_answers_are_encoded_and_what_the_game_refuses_too(policy: FreePolicy, tmp_path: Path) -> None:
    context = tilted(policy, 0.0)
    played = play_episodes(context, [(GAME, seed) for seed in range(3)], [1, 2, 3], tmp_path)
    turns = [turn for trajectory in played for turn in trajectory.turns]
    assert all(turn.scored and turn.command == turn.situation.choices[turn.action] for turn in turns)
    assert all(turn.refused and not turn.valid for turn in turns)  # a random model names no place
    assert [len(trajectory.turns) for trajectory in played] == [2, 2, 2]  # two refusals in a row end an episode
    encoder = EmbeddingEncoder(dimension=DIMENSION, whitening=context.whitening)
    spec = VectorSpec("embedding", DIMENSION, encoder.vocabulary, policy.version, ("tidy",), 4, 1.0, 1.0)
    vector = encode(encoder, context, played, spec, np.full((1, 4), -1, np.float32), 1.0)
    assert np.isfinite(vector.gradient).all() and (vector.fisher > 0).any() and vector.gradient.any()


def test_an_answer_far_from_the_others_counts_as_one_at_the_bound() -> None:
    """It neither outweighs the others nor moves them: differences between them stay as they were."""
    whitening = Whitening(np.eye(8, dtype=np.float16), 8)
    rng = np.random.default_rng(0)
    near = rng.normal(0, 0.3, (4, 8)).astype(np.float32)
    far = near.mean(0) + 50 * np.eye(1, 8, dtype=np.float32)
    alone, among = whitening.features(near), whitening.features(np.concatenate([near, far]))
    assert np.allclose(alone, near - near.mean(0), atol=1e-5)
    assert np.allclose(np.diff(among[:4], axis=0), np.diff(alone, axis=0), atol=1e-5)
    assert np.allclose(among.sum(0), 0, atol=1e-5)
    distances = np.linalg.norm(among[4] - among[:4], axis=1)
    assert distances.min() <= FARTHEST * 1.0001 and distances.max() < FARTHEST + 2
