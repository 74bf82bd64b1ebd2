"""The device half of the codecs that send words in the clear: lessons, or transcripts of whole games.

`text` is the method of the OEL paper (arXiv 2603.16856): the policy that played reads its own games with their outcomes
and writes lessons for other games of the kind. `raw` is the paper's baseline: the transcripts themselves.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...policies.abilities import PROMPT, WRITING, tell
from ...policies.policy import Policy
from ...protocol.experience import Floats, Vector
from ...protocol.play import Trajectory, Turn

ASK = (
    "Here is a text game that you played.\n\n{game}\n\nWrite at most three short lessons that would help in other "
    "games of this kind, not only in this one. Begin each with '- ' on a line of its own."
)
LIST_MARK = re.compile(r"^([-*•]|\d+[.)])\s+")
MOST_LESSONS, MAX_LESSON_WORDS, MAX_ANSWER_TOKENS = 3, 30, 80


@dataclass(frozen=True, slots=True)
class WordsEncoder:
    """Sends lessons that the policy writes about its games, or (`raw`) their transcripts. It has no coordinates."""

    name: str = "text"
    raw: bool = False
    vocabulary: str = hashlib.sha256(ASK.encode()).hexdigest()[:16]
    dimension: int = 0
    is_additive: bool = False
    server: str = "fedoel.codecs.words.codec:WordsCodec"

    @property
    def required_abilities(self) -> frozenset[str]:
        """A prompt to hold the words and, for lessons, a policy that can write them."""
        return frozenset({PROMPT}) if self.raw else frozenset({PROMPT, WRITING})

    def apply_context(self, policy: Policy, context: Vector) -> Policy:
        """Return the policy unchanged: only the teacher has the words in its prompt."""
        return policy

    def gradient_and_fisher(self, policy: Policy, turns: Sequence[Turn], advantages: Floats) -> tuple[Floats, Floats]:
        """Return empty vectors."""
        return np.zeros(0), np.zeros(0)

    def words(self, policy: Policy, trajectories: Sequence[Trajectory]) -> list[str]:
        """Return the lessons or transcripts of a device's trajectories.

        Raises
        ------
        ConfigError
            If the policy cannot write.
        """
        transcripts = [transcript(trajectory) for trajectory in trajectories]
        if self.raw:
            return transcripts
        rngs = [np.random.default_rng([trajectory.seed, index]) for index, trajectory in enumerate(trajectories)]
        requests = [(ASK.format(game=game), rng) for game, rng in zip(transcripts, rngs, strict=True)]
        return [lesson for answer in tell(policy, requests, MAX_ANSWER_TOKENS) for lesson in lessons(answer)]


def transcript(trajectory: Trajectory) -> str:
    """Return goal, replies, commands and outcome of a game as text."""
    goal = trajectory.turns[0].situation.goal if trajectory.turns else ""
    exchanges = [f"{turn.situation.reply or turn.situation.place_text}\n> {turn.command}" for turn in trajectory.turns]
    end = "You won." if trajectory.won else "You lost." if trajectory.lost else "You did not reach the goal in time."
    return "\n".join([f"Goal: {goal}", *exchanges, end])


def lessons(answer: str) -> list[str]:
    """Return the first complete sentences of an answer, one per line, without list marks."""
    lines = [LIST_MARK.sub("", " ".join(line.split())) for line in answer.splitlines()]
    whole = [line for line in lines if line.endswith((".", "!"))]  # the last line may be cut off
    return [line for line in whole if 2 < len(line.split()) <= MAX_LESSON_WORDS][:MOST_LESSONS]
