"""What a run keeps of its versions' answers, and of one game, for people to read."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.games.scripted import play_walkthrough
from fedoel.policies.backend import load_version
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.errors import FedoelError
from fedoel.protocol.records.behaviour import Answers, Replay
from fedoel.server.app import prepare, run
from fedoel.server.cycle.behaviour import LEAST, PROMPTS, answers, answers_of, kept_answers, kept_replay
from fedoel.server.cycle.phases import Phases
from fedoel.server.public.game_plan import GamePlan
from fedoel.server.registry import load_adapter
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.prompts import with_pack

from .gates import OpenGate

SETTINGS: dict[str, Scalar] = {
    "name": "small", "clients": 3, "cycles": 2, "games.families": "orchard turns=3", "games.per-client": 3,
    "games.rehearsal": 12, "games.gate": 6, "games.held-out": 8, "policy.backend": "tactics", "server.public": "games",
}  # fmt: skip
PROMPTS_ONLY: dict[str, Scalar] = {"server.public": "prompts", "server.pack": 40, "server.prompts-per-cycle": 20}


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    return RunConfig.from_flat({**SETTINGS, "cache": str(cache), "out": str(tmp_path / "run")})


@pytest.fixture(params=["games", "prompts"])
def of_each_server(request: pytest.FixtureRequest, config: RunConfig) -> RunConfig:
    """The same run with a server that plays and with one that has prompts only."""
    flat = config.to_flat() | (PROMPTS_ONLY if request.param == "prompts" else {})
    return RunConfig.from_flat(flat)


def played(config: RunConfig) -> Path:
    run_inprocess(config, make_gate=OpenGate)
    return Path(config.out)


def kept(folder: Path, cycles: int = 2) -> list[Answers]:
    found = [kept_answers(folder, cycle) for cycle in range(cycles + 1)]
    assert all(found)
    return [answers for answers in found if answers]


def test_every_version_answers_the_same_public_prompts_with_its_own_probabilities(of_each_server: RunConfig) -> None:
    folder = played(of_each_server)
    first, second, third = kept(folder)
    assert (first.parent, second.parent, third.parent) == ("", first.version, second.version)
    assert first.questions == second.questions == third.questions and 10 < len(first.questions) <= PROMPTS
    assert len(set(first.questions)) > 10 and all(len(question.commands) > 1 for question in first.questions)
    assert first.log_probs != second.log_probs != third.log_probs
    for one in (first, second, third):
        sums = [np.exp(log_probs).sum() for log_probs in one.log_probs]
        np.testing.assert_allclose(sums, 1, atol=1e-3)
        assert [len(log_probs) for log_probs in one.log_probs] == [len(q.commands) for q in one.questions]
    assert answers_of(folder, 2, third.version) == third and answers_of(folder, 2, second.version) is None


def test_answers_are_those_of_the_version_in_the_registry(config: RunConfig, cache: Path) -> None:
    config = with_pack(RunConfig.from_flat(config.to_flat() | PROMPTS_ONLY), cache)
    folder = played(config)
    last = kept(folder)[-1]
    policy = load_version(config.policy, load_adapter(folder / "versions" / last.version)[1], last.version, cache)
    situations = prepare(config, cache)[1].run.public.sample(PROMPTS)
    assert answers(policy, last.version, last.parent, situations) == last


def test_the_held_out_game_is_the_same_one_and_its_turns_have_the_probabilities_of_earlier_versions(
    of_each_server: RunConfig,
) -> None:
    folder = played(of_each_server)
    versions = [answers.version for answers in kept(folder)]
    second, third = kept_replay(folder, 1), kept_replay(folder, 2)
    assert kept_replay(folder, 0) is None and second and third
    assert second.versions == tuple(versions[:2]) and third.versions == tuple(versions)
    assert (second.game, second.seed) == (third.game, third.seed)
    for replay in (second, third):
        assert 0 < len(replay.turns) <= 3
        for turn in replay.turns:
            assert turn.answer in turn.question.commands and len(turn.log_probs) == len(replay.versions)
            np.testing.assert_allclose(np.exp(turn.log_probs).sum(axis=1), 1, atol=1e-3)
    assert second.turns[0].question == third.turns[0].question
    # Both versions before the last were asked in the same first turn as they had played in.
    assert second.turns[0].log_probs == third.turns[0].log_probs[:2]


def test_the_held_out_game_is_one_with_a_long_solution_whoever_plays(config: RunConfig, cache: Path) -> None:
    config = replace(config, games=replace(config.games, families="sokoban turns=20"))
    run = prepare(config, cache)[1].run
    games = GamePlan.of(config).held_out
    lengths = {seed: len(play_walkthrough(spec, seed, cache).turns) for spec, seed in games}
    assert len({*lengths.values()}) > 1 and lengths[games[0][1]] < max(lengths.values())
    chosen = {run.report.example(run.contender(adapter)).seed for adapter in ({}, {"weights": np.ones(DIMENSION)})}
    assert len(chosen) == 1 and lengths[chosen.pop()] == max(lengths.values())


def test_a_server_without_games_keeps_answers_and_replays_nothing(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As deployed: `run` without the simulation's report; here by leaving out what plays held-out games."""

    def fleet_alone(*arguments: Any, make_report: object, **named: Any) -> None:
        run(*arguments, **named)

    monkeypatch.setattr("fedoel.simulations.inprocess.run", fleet_alone)
    config = RunConfig.from_flat(config.to_flat() | PROMPTS_ONLY)
    folder = played(config)
    assert len(kept(folder)) == 3 and not list(folder.glob("checkpoints/*/replay.npz"))
    with pytest.raises(FedoelError, match="plays no games"):
        report = prepare(with_pack(config, Path(config.cache)), Path(config.cache))[1].run.report
        report.example(None)  # type: ignore[arg-type]


def test_a_candidate_that_waits_for_an_operator_has_answered_and_has_not_been_shown_a_held_out_game(
    config: RunConfig,
) -> None:
    folder = played(replace(config, cycles=1, server=replace(config.server, approve=True)))
    first, waiting = kept(folder, 1)
    assert waiting.parent == first.version and waiting.version != first.version
    assert not list(folder.glob("checkpoints/*/replay.npz"))


@pytest.mark.parametrize("phase", ["behaviour", "replay"])
def test_a_run_that_is_stopped_while_it_keeps_them_keeps_the_same(
    phase: str, config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Stopped(Exception):
        pass

    def refuses(self: Phases, cycle: int, name: str, outcome: Any, keep: Any = Phases.keep) -> None:
        if (cycle, name) == (1, phase):
            raise Stopped
        keep(self, cycle, name, outcome)

    whole = played(replace(config, out=str(tmp_path / "whole")))
    with monkeypatch.context() as patch, pytest.raises(Stopped):
        patch.setattr(Phases, "keep", refuses)
        played(config)
    folder = played(replace(config, resume=True))
    replays: list[list[Replay | None]] = [[kept_replay(each, cycle) for cycle in (1, 2)] for each in (folder, whole)]
    assert kept(folder) == kept(whole) and replays[0] == replays[1] and all(replays[0])


def test_an_impossible_command_stays_a_number_that_json_can_hold(config: RunConfig, cache: Path) -> None:
    class Sure:
        version = "sure"

        def score(self, situations: Any) -> list[Any]:
            return [np.array([0.0] + [-np.inf] * (len(s.admissible) - 1), np.float32) for s in situations]

    situations = prepare(config, cache)[1].run.public.sample(4)
    for log_probs in answers(Sure(), "sure", "", situations).log_probs:  # type: ignore[arg-type]
        assert log_probs[0] == 0 and set(log_probs[1:]) == {LEAST}
