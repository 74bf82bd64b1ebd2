"""Playing: many episodes in lock step through one policy, so that the model sees large batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ..policies.abilities import speaker
from ..policies.policy import LogProbs, Policy, sampled
from ..protocol.play import INVALID, GameSpec, Observation, Trajectory, Turn
from ..protocol.prompts import command_of
from ..protocol.situation import Memory, Situation
from .families import build_game
from .game import Game

Advance = Callable[[int], None]
MOST_REFUSED = 2  # invalid commands in a row, which end an episode


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """What a policy decided in one turn: the place of a command, or `INVALID`, and how it came to it."""

    log_probs: LogProbs
    action: int
    response: str = ""
    response_tokens: int = 0


@dataclass
class Episode:
    """One game under way: the only place where a game, a memory and a random stream meet."""

    spec: GameSpec
    seed: int
    game: Game
    rng: np.random.Generator
    memory: Memory
    observation: Observation
    situation: Situation
    turns: list[Turn] = field(default_factory=list)
    tokens: int = 0
    response_tokens: int = 0
    refused: int = 0

    @classmethod
    def begin(cls, spec: GameSpec, seed: int, stream: int, cache: Path) -> Episode:
        game = build_game(spec, cache)
        try:
            first = game.reset(seed)
        except BaseException:
            game.close()
            raise
        memory = Memory(first.goal, spec.max_turns)
        situation = memory.see(first.text, first.admissible, 0)
        return cls(spec, seed, game, np.random.default_rng(stream), memory, first, situation)

    @property
    def done(self) -> bool:
        return self.observation.done or self.refused == MOST_REFUSED

    def act(self, move: Move, tokens: int) -> None:
        """Give a command to the game. What is none never reaches it, and costs a turn."""
        before, turn = self.observation, Turn(self.situation, move.log_probs, move.action, 0.0, move.response)
        after = self.game.step(turn.command)
        self.turns.append(replace(turn, reward=_reward(before, after)))
        self.tokens += tokens
        self.response_tokens += move.response_tokens
        self.refused = 0 if turn.valid else self.refused + 1
        if turn.valid:
            self.memory.do(turn.command)
        self.situation = self.memory.see(after.text, after.admissible, after.turn)
        self.observation = after

    def finish(self, version: str) -> Trajectory:
        last = self.observation
        score = last.score / last.max_score if last.max_score else 0.0
        turns, tokens = tuple(self.turns), (self.tokens, self.response_tokens)
        return Trajectory(self.spec, self.seed, version, turns, last.won, last.lost, score, *tokens)


def play_episodes(
    policy: Policy,
    games: Sequence[tuple[GameSpec, int]],
    streams: Sequence[int],
    cache: Path,
    advance: Advance = lambda finished: None,
) -> list[Trajectory]:
    """Play every game to its end, all of them together, one turn of each at a time.

    Parameters
    ----------
    games
        Pairs of specification and game seed.
    streams
        One seed of a random stream an episode, so that an episode does not depend on the others.
    advance
        Called with the number of episodes that have just ended.
    """
    episodes: list[Episode] = []
    try:
        for (spec, seed), stream in zip(games, streams, strict=True):
            episodes.append(Episode.begin(spec, seed, stream, cache))
        active = [episode for episode in episodes if not episode.done]
        while active:
            prompts = policy.tokens([episode.situation for episode in active])
            for episode, move, tokens in zip(active, _moves(policy, active), prompts, strict=True):
                episode.act(move, tokens)
            running = [episode for episode in active if not episode.done]
            advance(len(active) - len(running))
            active = running
        return [episode.finish(policy.version) for episode in episodes]
    finally:
        for episode in episodes:
            episode.game.close()


def _moves(policy: Policy, episodes: Sequence[Episode]) -> list[Move]:
    """Decide one turn of every episode: draw from the policy's distribution, or let it write."""
    if (writer := speaker(policy)) is not None:
        answers = writer.respond([(episode.situation, episode.rng) for episode in episodes])
        return [
            Move(answer.log_probs, _found(command_of(answer.text), episode.situation), answer.text, len(answer.tokens))
            for answer, episode in zip(answers, episodes, strict=True)
        ]
    scores = policy.score([episode.situation for episode in episodes])
    return [Move(log_probs, draw(log_probs, episode.rng)) for log_probs, episode in zip(scores, episodes, strict=True)]


def _found(command: str, situation: Situation) -> int:
    return situation.admissible.index(command) if command in situation.admissible else INVALID


def draw(log_probs: LogProbs, rng: np.random.Generator) -> int:
    """Sample a command: one uniform number a turn."""
    return sampled(np.exp(log_probs.astype(np.float64)), rng)


def _reward(before: Observation, after: Observation) -> float:
    """Change of score over the maximal score; losing costs one."""
    gained = (after.score - before.score) / after.max_score if after.max_score else float(after.won and not before.won)
    return gained - float(after.lost and not before.lost)
