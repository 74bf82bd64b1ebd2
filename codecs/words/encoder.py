"""The device's half of the codecs that send words, which nothing hides: lessons, or whole games as they were.

`text` is the way of the OEL paper (arXiv 2603.16856): the policy that played reads its own games with their outcomes,
and writes down what other games of the kind could use. `raw` is its baseline: the games themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ...policies.abilities import PROMPT, WRITING, tell
from ...policies.policy import Policy
from ...protocol.experience import Vector
from ...protocol.play import Trajectory, Turn

Floats = NDArray[np.float64]
ASK = (
    "Here is a text game that you played.\n\n{game}\n\nWrite at most three short lessons that would help in other "
    "games of this kind, not only in this one. Begin each with '- ' on a line of its own."
)
MARK = re.compile(r"^([-*•]|\d+[.)])\s+")
MOST_LESSONS, LONGEST_LESSON, LONGEST_ANSWER = 3, 30, 80


@dataclass(frozen=True, slots=True)
class WordsEncoder:
    """Sends what its policy writes about its games, or the games themselves (`raw`). It has no coordinates."""

    name: str = "text"
    raw: bool = False
    vocabulary: str = hashlib.sha256(ASK.encode()).hexdigest()[:16]
    dimension: int = 0
    adds: bool = False
    server: str = "fedoel.codecs.words.codec:WordsCodec"

    @property
    def needs(self) -> frozenset[str]:
        """A prompt to read the words in, and a policy that can write them, unless they are the games themselves."""
        return frozenset({PROMPT}) if self.raw else frozenset({PROMPT, WRITING})

    def under(self, policy: Policy, context: Vector) -> Policy:
        """Leave the policy as it is: a context of words is for the teacher alone."""
        return policy

    def sums(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Count nothing."""
        return np.zeros(0), np.zeros(0)

    def words(self, policy: Policy, trajectories: Sequence[Trajectory]) -> list[str]:
        """What a device says about its games.

        Raises
        ------
        ConfigError
            If the policy cannot write.
        """
        games = [transcript(trajectory) for trajectory in trajectories]
        if self.raw:
            return games
        streams = [np.random.default_rng([trajectory.seed, place]) for place, trajectory in enumerate(trajectories)]
        asked = [(ASK.format(game=game), stream) for game, stream in zip(games, streams, strict=True)]
        return [lesson for answer in tell(policy, asked, LONGEST_ANSWER) for lesson in lessons(answer)]


def transcript(trajectory: Trajectory) -> str:
    """Tell a game from beginning to end."""
    goal = trajectory.turns[0].situation.goal if trajectory.turns else ""
    said = [f"{turn.situation.reply or turn.situation.place_text}\n> {turn.command}" for turn in trajectory.turns]
    end = "You won." if trajectory.won else "You lost." if trajectory.lost else "You did not reach the goal in time."
    return "\n".join([f"Goal: {goal}", *said, end])


def lessons(answer: str) -> list[str]:
    """Read the lines of an answer that are whole sentences, with or without a mark before them."""
    lines = [MARK.sub("", " ".join(line.split())) for line in answer.splitlines()]
    whole = [line for line in lines if line.endswith((".", "!"))]  # not what was cut off at the end
    return [line for line in whole if 2 < len(line.split()) <= LONGEST_LESSON][:MOST_LESSONS]
