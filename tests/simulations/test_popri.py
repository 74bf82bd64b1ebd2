"""Devices vote for what their own episodes have taught them, with one voice for each prompt; the teacher follows."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from fedoel.codecs.context import no_context
from fedoel.codecs.tactics.coordinates import cells
from fedoel.codecs.tactics.policy import uniform_policy
from fedoel.games.make_prompts import make_pack
from fedoel.games.player import play_episodes
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.protocol.config import ContextConfig, RunConfig
from fedoel.protocol.errors import VectorError
from fedoel.protocol.experience import Aggregate, Counters, ExperienceVector, VectorSpec
from fedoel.protocol.play import GameSpec, Turn, turns_of
from fedoel.server.public.turns import turns_under
from fedoel.simulations.baselines.popri import POPRI, PROMPTS, SAMPLES, Votes, VotesCodec
from fedoel.simulations.inprocess import run_inprocess

TIDY = GameSpec.parse("tidy things=1 final=1 turns=6")


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> list[Turn]:
    pack = make_pack([TIDY], 140, 0, tmp_path_factory.mktemp("cache"))
    return turns_under(uniform_policy(), [prompt.situation for prompt in pack.prompts])


@pytest.fixture(scope="module")
def codec(prompts: list[Turn]) -> VotesCodec:
    codec = VotesCodec(POPRI)
    return codec.with_parameters(codec.parameters(uniform_policy(), prompts))


def played(tmp_path: Path) -> tuple[list[Turn], np.ndarray]:
    """Turns of one device, and advantages that favour what ended in a win."""
    games = [(for_split(TIDY, Split.PRIVATE), game_seed(Split.PRIVATE, index)) for index in range(12)]
    trajectories = play_episodes(uniform_policy(), games, list(range(12)), tmp_path)
    turns = turns_of(trajectories)
    return turns, np.array([1.0 if trajectory.won else -0.5 for trajectory in trajectories for _ in trajectory.turns])


def votes_of(encoder: Votes, tmp_path: Path, scale: float = 1.0) -> np.ndarray:
    turns, advantages = played(tmp_path)
    gradient, fisher = encoder.gradient_and_fisher(uniform_policy(), turns, scale * advantages)
    assert np.array_equal(np.abs(gradient), fisher)
    return gradient.reshape(PROMPTS, SAMPLES)


def test_a_device_has_one_voice_for_and_one_against_whatever_it_has_played(codec: VotesCodec, tmp_path: Path) -> None:
    votes = votes_of(codec.encoder, tmp_path)
    assert set(np.unique(votes)) == {-1.0, 0.0, 1.0} and not votes.sum(axis=1).any()
    assert (np.abs(votes).sum(axis=1) <= 2).all()
    assert np.array_equal(votes, votes_of(codec.encoder, tmp_path, scale=3.0))


def test_without_prompts_or_without_experience_there_are_no_votes(codec: VotesCodec, tmp_path: Path) -> None:
    turns, advantages = played(tmp_path)
    with pytest.raises(VectorError, match="no prompts"):
        POPRI.gradient_and_fisher(uniform_policy(), turns, advantages)
    with pytest.raises(VectorError, match="needs"):
        POPRI.with_parameters({"keys": np.zeros((PROMPTS, 4), np.float32)})
    assert not codec.encoder.gradient_and_fisher(uniform_policy(), turns, 0 * advantages)[0].any()


def test_the_teacher_follows_the_votes_on_the_servers_prompts_and_nowhere_else(
    codec: VotesCodec, prompts: list[Turn], tmp_path: Path
) -> None:
    encoder = codec.encoder
    spec = VectorSpec("popri", POPRI.dimension, encoder.vocabulary, "v", ("tidy",), 6, 9.0, 1.0)
    votes = votes_of(encoder, tmp_path).ravel().astype(np.float32)
    counters = Counters(np.zeros(spec.counters_shape, np.float32))
    aggregate = Aggregate(ExperienceVector(spec, 5 * votes, 5 * np.abs(votes), counters), 5)
    context = codec.step(aggregate, uniform_policy(), prompts, ContextConfig(), no_context(POPRI.dimension))
    assert 0 < context.kl <= ContextConfig().max_kl + 1e-6
    known, unknown = prompts[:PROMPTS], prompts[PROMPTS:]
    answers = codec.teacher_log_probs(uniform_policy(), known, context)
    for row, (turn, answer) in enumerate(zip(known, answers, strict=True)):
        favourites = np.flatnonzero(votes.reshape(PROMPTS, SAMPLES)[row] > 0)
        drawn = encoder.arrays["answers"].astype(int)[row] if encoder.arrays else []
        assert all(answer[drawn[index]] > turn.log_probs[drawn[index]] for index in favourites)
    others = codec.teacher_log_probs(uniform_policy(), unknown, context)
    assert all(np.allclose(turn.log_probs, answer) for turn, answer in zip(unknown, others, strict=True))


def test_drawn_answers_are_commands_of_their_prompts_and_no_two_the_same(
    codec: VotesCodec, prompts: list[Turn]
) -> None:
    assert codec.encoder.arrays is not None
    answers, cues = (codec.encoder.arrays[name].astype(int) for name in ("answers", "cues"))
    for turn, drawn, tactics in zip(prompts, answers, cues, strict=False):
        some = drawn[drawn >= 0]
        assert len(set(some)) == len(some) == min(SAMPLES, len(turn.situation.admissible))
        assert np.array_equal(tactics[drawn >= 0], cells(turn.situation)[some])


def test_a_federation_that_votes_learns(tmp_path: Path, cache: Path) -> None:
    config = RunConfig.from_flat({
        "clients": 12, "cycles": 2, "seed": 9001, "games.families": "tidy things=1 final=0 turns=8",
        "games.per-client": 6, "games.held-out": 60, "policy.backend": "tactics", "server.public": "prompts",
        "server.pack": 120, "server.prompts-per-cycle": 120, "trial.share": 1.0,
        "codec.name": "fedoel.simulations.baselines.popri:POPRI", "out": str(tmp_path / "run"), "cache": str(cache),
    })  # fmt: skip
    run_inprocess(config)
    first, *_, last = json.loads((tmp_path / "run" / "summary.json").read_text())["cycles"]
    assert last["held_out"]["win_rate"] > first["held_out"]["win_rate"]
