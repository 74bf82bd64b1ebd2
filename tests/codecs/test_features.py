"""A codec in one method: its step and teacher in closed form are those that evaluating the policy gives."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import ArrayLike

from fedoel.codecs.codec import ModelCodec, load_codec
from fedoel.codecs.context import TeacherContext, no_context
from fedoel.codecs.encoder import load_encoder
from fedoel.codecs.features.codec import FeatureCodec
from fedoel.codecs.features.encoder import FeatureEncoder
from fedoel.codecs.tactics.policy import uniform_policy
from fedoel.protocol.config import ContextConfig
from fedoel.protocol.errors import ConfigError, VectorError
from fedoel.protocol.experience import Aggregate, Counters, ExperienceVector, VectorSpec
from fedoel.protocol.play import Turn
from fedoel.protocol.situation import Memory, Situation

COMMANDS = ("take coin", "go east", "look", "go west")
SITUATION = Memory("Take the coin.", 9).see("-= Hall =-\nA hall.", COMMANDS, 0)


class Lengths(FeatureEncoder):
    name = "lengths"
    coordinates = ("goes", "letters", "constant")

    def features(self, situation: Situation) -> ArrayLike:
        return [(command.startswith("go"), len(command) / 9, 1.0) for command in situation.admissible]


class Answers(Lengths):
    """Gives what a test wants it to give."""

    def __init__(self, answer: Callable[[Situation], ArrayLike]) -> None:
        super().__init__()
        self.answer = answer

    def features(self, situation: Situation) -> ArrayLike:
        return self.answer(situation)


def turns(seed: int) -> list[Turn]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(size=len(COMMANDS))
    log_probs = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
    return [Turn(SITUATION, log_probs, int(rng.integers(len(COMMANDS))), 0.0)]


def context(*weights: float) -> TeacherContext:
    return TeacherContext(np.array(weights, np.float32), np.array((3, 2, 1), np.float32), 0.1)


def test_names_say_what_vectors_may_be_added() -> None:
    class Renamed(Lengths):
        coordinates = ("goes", "characters", "constant")

    assert Lengths().dimension == 3
    assert Lengths().vocabulary == Lengths().vocabulary != Renamed().vocabulary


@given(st.integers(0, 2**32 - 1))
def test_the_teacher_in_closed_form_is_the_policy_under_the_context(seed: int) -> None:
    encoder, policy, learned = Lengths(), uniform_policy(), context(*np.random.default_rng(seed).normal(size=3))
    played = [Turn(SITUATION, policy.score([SITUATION])[0], 0, 0.0)]
    [ours] = FeatureCodec(encoder).teacher_log_probs(policy, played, learned)
    [theirs] = ModelCodec(encoder).teacher_log_probs(policy, played, learned)
    assert np.allclose(ours, theirs, atol=1e-6)
    assert np.isclose(np.exp(ours.astype(np.float64)).sum(), 1)
    assert encoder.apply_context(policy, no_context(3).weights) is policy


def test_the_gradient_raises_the_probability_of_what_was_better_than_expected() -> None:
    encoder, [turn] = Lengths(), turns(1)
    gradient, fisher = encoder.gradient_and_fisher(uniform_policy(), [turn], np.array([1.0]))
    probs, phi = np.exp(turn.log_probs.astype(np.float64)), encoder.phi(SITUATION)
    assert np.allclose(gradient, phi[turn.action] - probs @ phi, atol=1e-6)
    assert (fisher >= 0).all() and fisher[2] == pytest.approx(0, abs=1e-9)
    before = uniform_policy().score([SITUATION])[0]
    after = encoder.apply_context(uniform_policy(), gradient.astype(np.float32)).score([SITUATION])[0]
    assert after[turn.action] > before[turn.action]


def test_a_step_stays_in_the_trust_region() -> None:
    encoder, played = Lengths(), turns(2)
    spec = VectorSpec(encoder.name, encoder.dimension, encoder.vocabulary, "v", ("coin",), 4, 1e9, 1e9)
    counters = Counters(np.zeros(spec.counters_shape, np.float32))
    vector = ExperienceVector(spec, np.full(3, 9, np.float32), np.full(3, 0.1, np.float32), counters)
    config = ContextConfig(max_kl=0.05, damping=0.1)
    codec = FeatureCodec(encoder)
    after = codec.step(Aggregate(vector, 4), uniform_policy(), played, config, no_context(3))
    assert after.weights.any() and 0.04 < after.kl <= 0.05


def test_lessons_have_the_names_of_the_coordinates_strongest_first() -> None:
    lessons = FeatureCodec(Lengths()).lessons(uniform_policy(), [], context(0.5, -2, 0.01))
    assert [(lesson.tactic, lesson.weight) for lesson in lessons] == [("letters", -2.0), ("goes", 0.5)]


@pytest.mark.parametrize(
    "answer",
    [
        lambda situation: np.zeros((len(situation.admissible), 2)),
        lambda situation: np.zeros(3),
        lambda situation: np.full((len(situation.admissible), 3), np.nan),
    ],
    ids=("columns", "rows", "nan"),
)
def test_features_of_another_shape_are_refused(answer: Callable[[Situation], ArrayLike]) -> None:
    with pytest.raises(VectorError, match=r"'lengths' must be finite numbers of shape \(4, 3\)"):
        Answers(answer).phi(SITUATION)


def test_a_server_tries_the_features_before_any_device_has_to() -> None:
    def broken(situation: Situation) -> ArrayLike:
        raise KeyError(situation.admissible[0])

    with pytest.raises(ConfigError, match="'lengths' cannot tell the features of a situation: KeyError: 'take coin'"):
        FeatureCodec(Answers(broken))


@pytest.mark.parametrize(
    "members",
    [{}, {"name": "x"}, {"coordinates": ("a",)}, {"name": "x", "coordinates": ()},
     {"name": "x", "coordinates": ("a", "a")}, {"name": "x", "coordinates": "abc"}, {"name": "", "coordinates": ("a",)},
     {"name": "x", "coordinates": (1, 2)}, {"name": "x", "coordinates": {"a"}}, {"name": "x", "coordinates": 5},
     {"name": "x", "coordinates": ("\ud800",)}, {"name": "x", "coordinates": (" ",)}],
    ids=str,
)  # fmt: skip
def test_a_codec_says_its_name_and_those_of_its_coordinates(members: dict[str, object]) -> None:
    made = type("Mine", (FeatureEncoder,), {"features": Lengths.features, **members})
    with pytest.raises(ConfigError, match="the codec Mine needs a name and the names of its coordinates"):
        made()


class WithoutFeatures(FeatureEncoder):
    name = "without"
    coordinates = ("a",)


def test_a_class_that_cannot_be_made_is_refused_in_one_sentence() -> None:
    with pytest.raises(ConfigError, match=r"cannot be made: TypeError: .* WithoutFeatures"):
        load_encoder(f"{__name__}:WithoutFeatures")


class OneAbility(Lengths):
    required_abilities = "prompt"  # type: ignore[assignment]


def test_abilities_are_a_set() -> None:
    with pytest.raises(ConfigError, match="required_abilities must be a frozenset, not 'prompt'"):
        load_encoder(f"{__name__}:OneAbility")


class NoServerHalf(Lengths):
    server = f"{__name__}:Lengths"


def test_a_server_half_takes_an_encoder() -> None:
    with pytest.raises(ConfigError, match=r"its server half .* takes no encoder"):
        load_codec(f"{__name__}:NoServerHalf")
