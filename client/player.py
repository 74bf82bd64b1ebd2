"""Playing: many episodes in lock step through one policy, so that the model sees large batches."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..protocol.play import GameSpec, Observation, Trajectory, Turn
from ..protocol.situation import Memory, Situation
from .games.families import build_game
from .games.game import Game
from .policy.policy import LogProbs, Policy

Advance = Callable[[int], None]


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
        return self.observation.done

    def act(self, log_probs: LogProbs, tokens: int) -> None:
        """Draw a command from the policy's distribution and give it to the game."""
        situation, before = self.situation, self.observation
        action = draw(log_probs, self.rng)
        command = situation.admissible[action]
        after = self.game.step(command)
        self.turns.append(Turn(situation, log_probs, action, _reward(before, after)))
        self.tokens += tokens
        self.memory.do(command)
        self.situation = self.memory.see(after.text, after.admissible, after.turn)
        self.observation = after

    def finish(self, version: str) -> Trajectory:
        last = self.observation
        score = last.score / last.max_score if last.max_score else 0.0
        return Trajectory(self.spec, self.seed, version, tuple(self.turns), last.won, last.lost, score, self.tokens)


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
            situations = [episode.situation for episode in active]
            answers = zip(active, policy.score(situations), policy.tokens(situations), strict=True)
            for episode, log_probs, tokens in answers:
                episode.act(log_probs, tokens)
            running = [episode for episode in active if not episode.done]
            advance(len(active) - len(running))
            active = running
        return [episode.finish(policy.version) for episode in episodes]
    finally:
        for episode in episodes:
            episode.game.close()


def draw(log_probs: LogProbs, rng: np.random.Generator) -> int:
    """Sample an index by inverting the cumulative distribution: one uniform number a turn."""
    cumulative = np.exp(log_probs.astype(np.float64)).cumsum()
    return min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(log_probs) - 1)


def _reward(before: Observation, after: Observation) -> float:
    """Change of score over the maximal score; losing costs one."""
    gained = (after.score - before.score) / after.max_score if after.max_score else float(after.won and not before.won)
    return gained - float(after.lost and not before.lost)
