"""Records for people to read: what a version answers to a few public prompts, and one held-out game that it played.

Nothing that decides anything reads them. Log-probabilities are natural logarithms.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A situation as a reader sees it.

    Parameters
    ----------
    goal, place
        The task in words, and the name of the room.
    text
        What the player has read last: the reply to a command, or the description of the room.
    turn
        Number of commands given so far.
    commands
        The commands among which the player chooses.
    """

    goal: str
    place: str
    text: str
    turn: int
    commands: tuple[str, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Answers:
    """What a version answers to public prompts, the same ones for every version of a run.

    Parameters
    ----------
    version, parent
        The version, and the one that it was made from; an empty parent for the first.
    log_probs
        Those of the commands of each question.
    """

    version: str
    parent: str
    questions: tuple[Question, ...]
    log_probs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class PlayedTurn:
    """One turn of a game.

    Parameters
    ----------
    question
        What the player knew.
    answer
        What it did: a command, or the text that it wrote instead of one.
    log_probs
        Those of the commands with each of the replay's versions; empty where the game listed no commands.
    """

    question: Question
    answer: str
    log_probs: tuple[tuple[float, ...], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Replay:
    """One held-out game that a version played, and how likely each command was with earlier versions.

    Parameters
    ----------
    versions
        The first version of the run, unless it is the next, the one that the player was made from, and the player.
    game, seed
        The instance of the game.
    won, lost
        The outcome; neither if the game ended otherwise.
    score
        Final score over the maximal score.
    """

    versions: tuple[str, ...]
    game: str
    seed: int
    won: bool
    lost: bool
    score: float
    turns: tuple[PlayedTurn, ...]
