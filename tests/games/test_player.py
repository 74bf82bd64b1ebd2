from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedoel.games import player
from fedoel.games.game import Frame, RuledGame
from fedoel.games.player import draw, play_episodes
from fedoel.policies.policy import LogProbs
from fedoel.protocol.errors import GameError
from fedoel.protocol.play import GameSpec, Trajectory
from fedoel.protocol.situation import Situation

SPEC = GameSpec("fake", (), 6)
LOSING = GameSpec("fake", (("deadly", True),), 6)
BROKEN = GameSpec("fake", (("broken", True),), 6)
NOWHERE = Path("no-cache")
UNSTARTABLE = 666


class Steps:
    """Reach step `seed` from step 0: ``go on`` advances, ``wait`` does not, ``jump`` loses if `deadly` is set."""

    def __init__(self, deadly: bool, broken: bool) -> None:
        self.deadly, self.broken = deadly, broken
        self.closed = 0

    def start(self, seed: int) -> Frame:
        if seed == UNSTARTABLE:
            raise GameError("the game does not start")
        self.goal, self.at = seed, 0
        return self._frame(False)

    def act(self, command: str) -> Frame:
        if self.broken:
            raise GameError("the game crashed")
        self.at += command == "go on"
        return self._frame(command == "jump" and self.deadly)

    def walkthrough(self) -> tuple[str, ...] | None:
        return None

    def close(self) -> None:
        self.closed += 1

    def _frame(self, lost: bool) -> Frame:
        won = self.at >= self.goal
        return Frame(
            f"-= Step {self.at} =-\nOf {self.goal}.",
            "Arrive.",
            ("go on", "wait", "jump"),
            self.at,
            self.goal,
            won,
            lost,
        )


class Uneven:
    """A policy with the same non-uniform distribution in every situation."""

    version = "v"
    abilities: frozenset[str] = frozenset()

    def __init__(self) -> None:
        self.batches: list[int] = []

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        self.batches.append(len(situations))
        return [np.log(np.array([0.5, 0.3, 0.2], dtype=np.float32)) for _ in situations]

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [10 + situation.turn for situation in situations]


class Always(Uneven):
    """A policy that always chooses the same command."""

    def __init__(self, action: int) -> None:
        super().__init__()
        self.action = action

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        log_probs = np.full(3, -1e9, dtype=np.float32)
        log_probs[self.action] = 0.0
        return [log_probs for _ in situations]


@pytest.fixture
def engines(monkeypatch: pytest.MonkeyPatch) -> list[Steps]:
    built: list[Steps] = []

    def build(spec: GameSpec, cache: Path) -> RuledGame:
        settings = dict(spec.settings)
        built.append(Steps(bool(settings.get("deadly")), bool(settings.get("broken"))))
        return RuledGame(built[-1], spec.max_turns)

    monkeypatch.setattr(player, "build_game", build)
    return built


def commands(trajectory: Trajectory) -> list[str]:
    return [turn.command for turn in trajectory.turns]


def test_an_episode_does_not_depend_on_the_others(engines: list[Steps]) -> None:
    games, streams = [(SPEC, 2), (SPEC, 4), (LOSING, 3), (SPEC, 2)], [11, 12, 13, 14]
    together = play_episodes(Uneven(), games, streams, NOWHERE)
    for index, trajectory in enumerate(together):
        alone = play_episodes(Uneven(), games[index : index + 1], streams[index : index + 1], NOWHERE)[0]
        assert commands(alone) == commands(trajectory)
        assert (alone.won, alone.lost, alone.score) == (trajectory.won, trajectory.lost, trajectory.score)


def test_the_stream_determines_the_commands(engines: list[Steps]) -> None:
    same = play_episodes(Uneven(), [(SPEC, 9)] * 2, [5, 5], NOWHERE)
    others = play_episodes(Uneven(), [(SPEC, 9)] * 8, list(range(8)), NOWHERE)
    assert commands(same[0]) == commands(same[1])
    assert len({tuple(commands(trajectory)) for trajectory in others}) > 4


def test_rewards_are_score_changes_and_sum_to_the_score(engines: list[Steps]) -> None:
    won = play_episodes(Always(0), [(SPEC, 4)], [0], NOWHERE)[0]
    assert [turn.reward for turn in won.turns] == [0.25] * 4
    assert (won.won, won.score, won.policy_version) == (True, 1.0, "v")


def test_losing_costs_one(engines: list[Steps]) -> None:
    lost = play_episodes(Always(2), [(LOSING, 4)], [0], NOWHERE)[0]
    assert [turn.reward for turn in lost.turns] == [-1.0]
    assert (lost.won, lost.lost, lost.score) == (False, True, 0.0)


def test_the_turn_limit_ends_an_episode_and_prompt_tokens_are_counted(engines: list[Steps]) -> None:
    waited = play_episodes(Always(1), [(SPEC, 4)], [0], NOWHERE)[0]
    assert commands(waited) == ["wait"] * 6
    assert waited.prompt_tokens == sum(10 + turn for turn in range(6))


def test_the_player_remembers_its_own_commands(engines: list[Steps]) -> None:
    turns = play_episodes(Always(1), [(SPEC, 4)], [0], NOWHERE)[0].turns
    assert (turns[0].situation.done_here, turns[0].situation.turn) == ((), 0)
    assert (turns[1].situation.done_here, turns[1].situation.turn) == (("wait",), 1)


def test_ended_episodes_leave_the_batch_and_are_reported(engines: list[Steps]) -> None:
    policy, ended = Always(0), list[int]()
    play_episodes(policy, [(SPEC, 0), (SPEC, 1), (SPEC, 3)], [0, 0, 0], NOWHERE, ended.append)
    assert ended == [1, 0, 1]


def test_games_are_closed_after_the_last_turn_and_after_an_error(engines: list[Steps]) -> None:
    play_episodes(Uneven(), [(SPEC, 2)] * 3, [1, 2, 3], NOWHERE)
    with pytest.raises(GameError, match="crashed"):
        play_episodes(Uneven(), [(SPEC, 2), (BROKEN, 2)], [1, 2], NOWHERE)
    assert len(engines) == 5
    assert all(engine.closed for engine in engines)


def test_games_are_closed_when_a_later_one_does_not_start(engines: list[Steps]) -> None:
    with pytest.raises(GameError, match="does not start"):
        play_episodes(Uneven(), [(SPEC, 2), (SPEC, UNSTARTABLE)], [1, 2], NOWHERE)
    assert [engine.closed for engine in engines] == [1, 1]


def test_every_game_needs_a_stream(engines: list[Steps]) -> None:
    with pytest.raises(ValueError, match="zip"):
        play_episodes(Uneven(), [(SPEC, 2)] * 2, [1], NOWHERE)


@given(st.lists(st.floats(0.01, 1.0), min_size=1, max_size=6), st.integers(0, 1000))
def test_a_draw_has_the_probabilities_of_the_policy(weights: list[float], seed: int) -> None:
    probs = np.array(weights) / sum(weights)
    rng = np.random.default_rng(seed)
    drawn = [draw(np.log(probs).astype(np.float32), rng) for _ in range(400)]
    rates = np.bincount(drawn, minlength=len(probs)) / 400
    assert rates.shape == probs.shape
    assert (np.abs(rates - probs) < 6 * np.sqrt(0.25 / 400)).all()


def test_commands_of_probability_zero_are_never_drawn() -> None:
    log_probs = np.array([-np.inf, 0.0, -np.inf], dtype=np.float32)
    assert {draw(log_probs, np.random.default_rng(seed)) for seed in range(50)} == {1}
