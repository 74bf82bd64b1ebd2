"""The codec `embedding` on a tiny random model: gradients, whitening, closed-form teacher, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.codec import HasParameters, load_codec
from fedoel.codecs.context import TeacherContext, divergence, no_context
from fedoel.codecs.embedding.codec import EmbeddingCodec
from fedoel.codecs.embedding.encoder import DIMENSION, MATRIX, EmbeddingEncoder
from fedoel.codecs.embedding.policy import RewardTiltedPolicy
from fedoel.codecs.embedding.whitening import Whitening
from fedoel.codecs.encoder import load_encoder, with_parameters
from fedoel.policies.torch.base import load_base
from fedoel.policies.torch.model import TorchModel
from fedoel.policies.torch.policy import TorchPolicy
from fedoel.protocol.config import ContextConfig, PolicyConfig
from fedoel.protocol.errors import ConfigError, VectorError
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation

from .test_encoders import UNIFORM

COMMANDS = ("go east", "go east now", "take coin", "look", "take lamp")


def situations(count: int = 24) -> list[Situation]:
    rng = np.random.default_rng(0)
    words = ("coin", "lamp", "door", "shelf", "hall", "east", "west", "cellar")
    drawn = [" ".join(rng.choice(words, 4)) for _ in range(count)]
    return [
        Memory("Take the coin.", 9).see(f"-= Hall =-\nA {text}.", COMMANDS[: 3 + n % 3], 0)
        for n, text in enumerate(drawn)
    ]


@pytest.fixture
def policy(tiny_base: Path, tmp_path: Path) -> TorchPolicy:
    config = PolicyConfig(base=str(tiny_base), device="cpu", precision="fp32", threads=1, lora_layers=1, lora_rank=4)
    return TorchPolicy(TorchModel(load_base(config, tmp_path), 256), {})


def turns_of(policy: TorchPolicy, some: list[Situation]) -> list[Turn]:
    return [Turn(s, p, n % len(p), 0.0) for n, (s, p) in enumerate(zip(some, policy.score(some), strict=True))]


@pytest.fixture
def codec(policy: TorchPolicy) -> EmbeddingCodec:
    bare = load_codec("embedding")
    assert isinstance(bare, HasParameters) and isinstance(bare, EmbeddingCodec)
    return bare.with_parameters(bare.parameters(policy, turns_of(policy, situations())))


def weights(scale: float = 1.0) -> np.ndarray:
    return np.random.default_rng(3).normal(0, scale, DIMENSION).astype(np.float32)


def test_embeddings_are_those_of_the_whole_command_alone(policy: TorchPolicy) -> None:
    together = policy.embed(situations())
    alone = [policy.embed([replace(s, admissible=(command,))])[0][0] for s in situations(2) for command in s.admissible]
    assert [len(e) for e in together] == [len(s.admissible) for s in situations()]
    # The list of commands is not part of a prompt: what a command's tokens attend to is the prompt and themselves.
    assert np.allclose(np.concatenate(together[:2]), np.stack(alone), atol=1e-4)


def test_scores_beside_embeddings_are_the_scores_alone(policy: TorchPolicy) -> None:
    for scores, (beside, embeddings), again in zip(
        policy.score(situations()), policy.score_and_embed(situations()), policy.embed(situations()), strict=True
    ):
        assert np.allclose(scores, beside, atol=1e-5)
        assert np.allclose(embeddings, again, atol=1e-5)


def test_the_prefix_cache_of_training_keeps_embeddings_and_the_states_to_train_on(policy: TorchPolicy) -> None:
    cache = policy.model.new_prefix_cache(keep_bottoms=True)
    kept = TorchPolicy(policy.model, {}, cache)
    _, embeddings = kept.score_and_embed(situations(1))[0]
    (row,) = policy.model.tokenizer.encode(situations(1))
    assert cache.kept is not None and len(cache.kept.embeddings) == 1
    assert row.key in cache.kept.rows
    assert np.array_equal(kept.embed(situations(1))[0], embeddings)


def test_coordinates_are_uncorrelated_and_of_equal_variance_on_the_public_situations(
    policy: TorchPolicy, codec: EmbeddingCodec
) -> None:
    features = np.concatenate(codec.encoder.turn_features(policy, turns_of(policy, situations())))
    covariance = features.T @ features / len(features)
    used = covariance.diagonal() > 0
    assert used.sum() == 32 and not used[32:].any()  # a hidden state of the tiny model has 32 entries
    assert np.allclose(covariance[:20, :20], np.eye(20) / DIMENSION, atol=0.05 / DIMENSION)


def test_the_whitening_matrix_is_the_same_from_the_same_situations(policy: TorchPolicy) -> None:
    embeddings = policy.embed(situations())
    first, second = (Whitening.fit(some, 8) for some in (embeddings, [e[::-1] for e in embeddings]))
    assert np.allclose(first.matrix, second.matrix, atol=2e-3)
    assert first.digest == Whitening.fit(embeddings, 8).digest != Whitening.fit(embeddings[1:], 8).digest


def test_the_gradient_is_the_derivative_of_the_log_probability_at_the_context_that_was_played(
    policy: TorchPolicy, codec: EmbeddingCodec
) -> None:
    encoder, context, direction = codec.encoder, weights(), weights()[::-1]
    some, advantages = situations(4), np.array([1.0, -0.5, 2.0, 0.3])
    played = encoder.apply_context(policy, context)
    turns = [Turn(s, p, 1, 0.0) for s, p in zip(some, played.score(some), strict=True)]
    gradient, fisher = encoder.gradient_and_fisher(played, turns, advantages)

    def objective(step: float) -> float:
        moved = encoder.apply_context(policy, (context + step * direction).astype(np.float32)).score(some)
        return float(sum(a * log_probs[1] for a, log_probs in zip(advantages, moved, strict=True)))

    assert gradient @ direction == pytest.approx((objective(1e-2) - objective(-1e-2)) / 2e-2, rel=1e-2)
    assert (fisher >= 0).all()
    bare = encoder.gradient_and_fisher(policy, turns, advantages)
    assert np.allclose(bare[0], gradient, atol=1e-5)


def test_a_context_of_zeros_changes_nothing_but_keeps_features(policy: TorchPolicy, codec: EmbeddingCodec) -> None:
    played = codec.teacher(policy, no_context(DIMENSION))
    assert isinstance(played, RewardTiltedPolicy)
    for answer, same in zip(policy.score(situations()), played.score(situations()), strict=True):
        assert np.allclose(answer, same, atol=1e-5)
    assert played.version == policy.version
    assert set(played.seen) == set(situations())


def test_the_teacher_in_closed_form_is_the_policy_under_the_context(policy: TorchPolicy, codec: EmbeddingCodec) -> None:
    context, turns = TeacherContext(weights(2.0), weights(), 0.0), turns_of(policy, situations())
    closed = codec.teacher_log_probs(policy, turns, context)
    for answer, same in zip(codec.teacher(policy, context).score(situations()), closed, strict=True):
        assert np.allclose(answer, same, atol=1e-4)


def test_the_step_ends_at_the_trust_region_and_follows_the_gradient(policy: TorchPolicy, codec: EmbeddingCodec) -> None:
    spec = VectorSpec("embedding", DIMENSION, codec.encoder.vocabulary, "v", ("coin",), 4, 1e9, 1e9)
    turns, config = turns_of(policy, situations()), ContextConfig(max_kl=0.05)
    given = Aggregate(
        ExperienceVector.unchecked(spec, np.concatenate([weights(9.0), np.ones(spec.size - DIMENSION)])), 4
    )
    context = codec.step(given, policy, turns, config, no_context(DIMENSION))
    assert context.kl == pytest.approx(0.05, rel=1e-3)
    assert divergence(codec.teacher_log_probs(policy, turns, context), turns) == pytest.approx(0.05, rel=1e-3)
    assert context.weights @ given.vector.gradient > 0


def test_lessons_say_which_answers_become_more_and_less_likely(policy: TorchPolicy, codec: EmbeddingCodec) -> None:
    turns = turns_of(policy, situations())
    learned = codec.lessons(policy, turns, TeacherContext(weights(60.0), weights(), 0.0))
    assert learned and [abs(x.weight) for x in learned] == sorted((abs(x.weight) for x in learned), reverse=True)
    assert {lesson.tactic.split(":")[0] for lesson in learned} <= set(COMMANDS)
    assert codec.lessons(policy, turns, no_context(DIMENSION)) == []


def test_a_device_refuses_what_is_not_the_servers_matrix(policy: TorchPolicy, codec: EmbeddingCodec) -> None:
    encoder = load_encoder("embedding")
    assert isinstance(encoder, EmbeddingEncoder)
    with pytest.raises(VectorError, match="no whitening matrix"):
        encoder.apply_context(policy, weights())
    for parameters in ({}, {"other": np.zeros((32, DIMENSION), np.float16)}):
        with pytest.raises(VectorError, match="one parameter"):
            with_parameters(encoder, parameters)
    for matrix in (np.zeros((32, 3), np.float16), np.zeros((32, DIMENSION), np.float32), np.zeros(3, np.float16)):
        with pytest.raises(VectorError, match="float16 with 64 columns"):
            with_parameters(encoder, {MATRIX: matrix})
    with pytest.raises(VectorError, match="not finite"):
        with_parameters(encoder, {MATRIX: np.full((32, DIMENSION), np.nan, np.float16)})
    with pytest.raises(VectorError, match="does not fit a model"):
        with_parameters(encoder, {MATRIX: np.ones((16, DIMENSION), np.float16)}).apply_context(policy, weights()).score(
            situations(1)
        )
    other = with_parameters(encoder, {MATRIX: np.ones((32, DIMENSION), np.float16)})
    assert len({encoder.vocabulary, other.vocabulary, codec.encoder.vocabulary}) == 3
    with pytest.raises(VectorError, match="has no parameters"):
        with_parameters(load_encoder("tactics"), {MATRIX: np.ones((32, DIMENSION), np.float16)})


def test_a_policy_without_hidden_states_is_refused(codec: EmbeddingCodec) -> None:
    with pytest.raises(ConfigError, match="hidden states"):
        codec.encoder.apply_context(UNIFORM, weights()).score(situations(1))


def test_commands_that_differ_in_their_last_token_only_have_embeddings_of_their_own(policy: TorchPolicy) -> None:
    cached = TorchPolicy(policy.model, {}, policy.model.new_prefix_cache(keep_bottoms=True))
    some = situations(1)[0]
    first, second = (
        replace(some, admissible=commands) for commands in (("take a", "take b"), ("take d", "take c", "take a"))
    )
    cached.score_and_embed([first])
    assert np.allclose(cached.embed([second])[0], policy.embed([second])[0], atol=1e-5)
    assert np.allclose(cached.embed([second])[0][2], cached.embed([first])[0][0], atol=1e-5)
