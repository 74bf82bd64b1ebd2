"""Rollouts: play many episodes in lock step through one policy, so that the model evaluates large batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..policies.abilities import speaker
from ..policies.policy import Answer, LogProbs, Policy, sampled
from ..protocol.play import INVALID, GameSpec, Observation, Trajectory, Turn
from ..protocol.situation import Memory, Situation
from .families import build_game
from .game import Game, situation_of

Advance = Callable[[int], None]
MAX_CONSECUTIVE_INVALID = 2  # so many inadmissible commands in a row end an episode


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """A policy's decision in one turn.

    Parameters
    ----------
    log_probs
        Log-probabilities of the admissible commands, or of the alternatives.
    action
        Index of the chosen one among them, or `INVALID` if the response contains none of them.
    response, response_tokens
        What a policy that decodes freely generated, and its number of tokens.
    alternatives
        The answers that the policy sampled, if it did not choose among the admissible commands.
    """

    log_probs: LogProbs
    action: int
    response: str = ""
    response_tokens: int = 0
    alternatives: tuple[str, ...] = ()


@dataclass
class Episode:
    """One running episode: its game, the player's memory, its random stream, and the turns so far."""

    spec: GameSpec
    seed: int
    game: Game
    rng: np.random.Generator
    memory: Memory
    observation: Observation
    situation: Situation
    turns: list[Turn] = field(default_factory=list)
    prompt_tokens: int = 0
    response_tokens: int = 0
    consecutive_invalid: int = 0

    @classmethod
    def begin(cls, spec: GameSpec, seed: int, stream: int, cache: Path) -> Episode:
        game = build_game(spec, cache)
        try:
            first = game.reset(seed)
        except BaseException:
            game.close()
            raise
        memory = Memory(first.goal, spec.max_turns)
        situation = situation_of(memory, first)
        return cls(spec, seed, game, np.random.default_rng(stream), memory, first, situation)

    @property
    def done(self) -> bool:
        return self.observation.done or self.consecutive_invalid == MAX_CONSECUTIVE_INVALID

    def act(self, move: Move, prompt_tokens: int) -> None:
        """Play one turn. What the game does not take changes nothing but uses up a turn."""
        situation = replace(self.situation, alternatives=move.alternatives)
        before, turn = self.observation, Turn(situation, move.log_probs, move.action, 0.0, move.response)
        after = self.game.step(turn.command)
        self.turns.append(replace(turn, reward=_reward(before, after), refused=not after.valid))
        self.prompt_tokens += prompt_tokens
        self.response_tokens += move.response_tokens
        self.consecutive_invalid = 0 if after.valid else self.consecutive_invalid + 1
        if after.valid:
            self.memory.do(turn.command)
        self.situation = situation_of(self.memory, after)
        self.observation = after

    def trajectory(self, policy_version: str) -> Trajectory:
        last = self.observation
        score = last.score / last.max_score if last.max_score else 0.0
        turns, tokens = tuple(self.turns), (self.prompt_tokens, self.response_tokens)
        return Trajectory(self.spec, self.seed, policy_version, turns, last.won, last.lost, score, *tokens)


def play_episodes(
    policy: Policy,
    games: Sequence[tuple[GameSpec, int]],
    streams: Sequence[int],
    cache: Path,
    advance: Advance = lambda finished: None,
) -> list[Trajectory]:
    """Play all games to their ends together, one turn of every running episode at a time.

    Parameters
    ----------
    policy
        Chooses the commands.
    games
        Pairs of specification and game seed.
    streams
        One seed of a random generator per episode, so that a trajectory does not depend on the other episodes.
    cache
        Folder for compiled games.
    advance
        Called after every turn with the number of episodes that ended in it.

    Returns
    -------
    list of Trajectory
        In the order of `games`.
    """
    episodes: list[Episode] = []
    try:
        for (spec, seed), stream in zip(games, streams, strict=True):
            episodes.append(Episode.begin(spec, seed, stream, cache))
        running = [episode for episode in episodes if not episode.done]
        while running:
            prompt_tokens = policy.tokens([episode.situation for episode in running])
            for episode, move, tokens in zip(running, _moves(policy, running), prompt_tokens, strict=True):
                episode.act(move, tokens)
            still_running = [episode for episode in running if not episode.done]
            advance(len(running) - len(still_running))
            running = still_running
        return [episode.trajectory(policy.version) for episode in episodes]
    finally:
        for episode in episodes:
            episode.game.close()


def _moves(policy: Policy, episodes: Sequence[Episode]) -> list[Move]:
    """Decide one turn of every episode: draw from the policy's distribution, or let it write."""
    if (writer := speaker(policy)) is not None:
        answers = writer.respond([(episode.situation, episode.rng) for episode in episodes])
        return [_move(answer, episode.situation) for answer, episode in zip(answers, episodes, strict=True)]
    scores = policy.score([episode.situation for episode in episodes])
    return [Move(log_probs, draw(log_probs, episode.rng)) for log_probs, episode in zip(scores, episodes, strict=True)]


def _move(answer: Answer, situation: Situation) -> Move:
    action = _index_of(answer.command, answer.alternatives or situation.admissible)
    return Move(answer.log_probs, action, answer.text, len(answer.tokens), answer.alternatives)


def _index_of(command: str, choices: Sequence[str]) -> int:
    return choices.index(command) if command in choices else INVALID


def draw(log_probs: LogProbs, rng: np.random.Generator) -> int:
    """Sample the index of a command; consumes one uniform number of the random stream."""
    return sampled(np.exp(log_probs.astype(np.float64)), rng)


def _reward(before: Observation, after: Observation) -> float:
    """Change of the score over the maximal score, minus one if the game was lost."""
    gained = (after.score - before.score) / after.max_score if after.max_score else float(after.won and not before.won)
    return gained - float(after.lost and not before.lost)
