from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fedoel.codecs import encoder as encoding
from fedoel.codecs.encoder import load_encoder, returns_to_go
from fedoel.codecs.tactics.coordinates import DIMENSION, VOCABULARY, cells
from fedoel.codecs.tactics.encoder import moments
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.codecs.words.encoder import lessons, transcript
from fedoel.protocol.experience import ExperienceVector, Vector, VectorSpec
from fedoel.protocol.play import INVALID, GameSpec, Trajectory, Turn
from fedoel.protocol.situation import Memory

UNIFORM = TacticsPolicy("v", np.zeros(DIMENSION, np.float32))
SPEC = VectorSpec("tactics", DIMENSION, VOCABULARY, "v", ("coin",), 4, 1e9, 1e9)
COMMANDS = ("take coin", "take lamp", "go east", "go north", "look")


def turn(action: int, reward: float, seed: int = 0) -> Turn:
    situation = Memory("Take the coin.", 5).see("-= Hall =-\nA hall.", COMMANDS, 0)
    logits = np.random.default_rng(seed).normal(size=len(COMMANDS))
    log_probs = (logits - np.log(np.exp(logits).sum())).astype(np.float32)
    return Turn(situation, log_probs, action, reward)


def episode(*turns: Turn, won: bool = True) -> Trajectory:
    return Trajectory(GameSpec("coin", (), 4), 0, "v", turns, won, False, float(won), 30)


def encode(trajectories: Sequence[Trajectory], baseline: Vector, discount: float = 0.9) -> ExperienceVector:
    return encoding.encode(load_encoder("tactics"), UNIFORM, trajectories, SPEC, baseline, discount)


def test_lessons_are_whole_sentences_with_or_without_a_mark() -> None:
    answer = "- Take what shines.\n\n2. Never  go back!\n* Too short.\nOpen the door first.\nA fourth one.\nAnd cut o"
    assert lessons(answer) == ["Take what shines.", "Never go back!", "Open the door first."]
    assert lessons("- " + "word " * 31 + ".") == []


def test_a_transcript_holds_goal_commands_and_outcome_in_order() -> None:
    text = transcript(episode(turn(2, 0.0), turn(0, 1.0)))
    assert text.startswith("Goal: Take the coin.\n-= Hall =-")
    assert text.index("> go east") < text.index("> take coin") < text.index("You won.")


def test_a_turn_without_a_command_counts_only_by_its_reward() -> None:
    none = np.zeros((1, 4), np.float32)
    invalid = replace(turn(0, 0.0), action=INVALID, response="hm")
    whole = encode([episode(turn(1, 0.0), invalid, turn(0, 1.0))], none)
    parts = [encode([episode(turn(1, 0.81))], none), encode([episode(turn(0, 1.0))], none)]
    assert np.allclose(whole.gradient, sum(part.gradient for part in parts), atol=1e-6)
    assert whole.counters.values[0, 2] == 3


def test_returns_are_discounted_sums_of_later_rewards() -> None:
    assert returns_to_go([0.0, 1.0, -1.0], 0.5).tolist() == [0.25, 0.5, -1.0]


@given(st.integers(0, 1000))
def test_the_score_function_has_mean_zero_and_the_fisher_diagonal_as_variance(seed: int) -> None:
    probs = np.exp(turn(0, 0.0, seed).log_probs.astype(np.float64))
    scores = np.stack([moments(turn(action, 0.0, seed))[0] for action in range(len(COMMANDS))])
    assert np.allclose(probs @ scores, 0.0, atol=1e-6)
    assert np.allclose(probs @ scores**2, moments(turn(0, 0.0, seed))[1], atol=1e-6)


def test_rewarded_commands_get_a_positive_gradient_and_punished_ones_a_negative() -> None:
    zero = np.zeros((1, 4), dtype=np.float32)
    cell = int(cells(turn(0, 0.0).situation)[0])
    assert encode([episode(turn(0, 1.0))], zero).gradient[cell] > 0
    assert encode([episode(turn(0, -1.0), won=False)], zero).gradient[cell] < 0


def test_a_return_equal_to_the_baseline_gives_no_gradient() -> None:
    expected = np.full((1, 4), 1.0, dtype=np.float32)
    assert not encode([episode(turn(0, 1.0))], expected).gradient.any()


def test_vectors_are_sums_over_episodes_and_count_them() -> None:
    zero = np.zeros((1, 4), dtype=np.float32)
    one, two = episode(turn(0, 0.0), turn(2, 1.0)), episode(turn(4, 0.0), won=False)
    both = encode([one, two], zero).to_array()
    apart = [encode([t], zero).to_array() for t in (one, two)]
    assert np.allclose(both, sum(apart), atol=1e-5)
    counters = encode([one, two], zero).counters
    assert counters.values[0, :4].tolist() == [2, 1, 3, 60]
    assert counters.visits[0].tolist() == [2, 1, 0, 0]


def test_steps_beyond_the_horizon_are_not_counted_but_still_enter_the_gradient() -> None:
    zero = np.zeros((1, 4), dtype=np.float32)
    long = encode([episode(*[turn(0, 0.0)] * 5, turn(0, 1.0))], zero, 0.5)
    assert long.counters.values[0, 2] == 6
    assert long.counters.returns[0].tolist() == [0.5**5, 0.5**4, 0.5**3, 0.5**2]
    assert long.counters.visits[0].tolist() == [1, 1, 1, 1]
    returns = sum(0.5**n for n in range(6))
    assert np.allclose(long.gradient, returns * moments(turn(0, 0.0))[0], atol=1e-6)
