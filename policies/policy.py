"""The policy protocol: what gives the log-probabilities of the admissible commands in a situation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ModelError
from ..protocol.prompts import command_of
from ..protocol.situation import Situation

LogProbs = NDArray[np.float32]


NOTHING = "..."  # stands for the command of a response without one


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """A response written in one situation.

    Parameters
    ----------
    text, tokens
        The response and its token ids.
    log_probs
        Log-probabilities of the alternatives, or else of the admissible commands if those are scored.
    alternatives
        Commands of the answers that were sampled, this one among them, without repetitions. Empty if the answer has to
        be one of the admissible commands.
    finished
        False if it was cut off, at the most tokens that it may have, before its end.
    """

    text: str
    tokens: tuple[int, ...]
    log_probs: LogProbs
    alternatives: tuple[str, ...] = ()
    finished: bool = True

    @property
    def command(self) -> str:
        """The command of the response."""
        return command_of(self.text) or NOTHING


def with_answers(situation: Situation, answers: Sequence[Answer]) -> Situation:
    """Return a situation whose choices are the commands of answers, in the order of their first appearance."""
    return replace(situation, alternatives=tuple(dict.fromkeys(answer.command for answer in answers)))


class Policy(Protocol):
    """One version of a policy. Calls are batched; results do not depend on the rest of the batch."""

    @property
    def abilities(self) -> frozenset[str]:
        """What it can do beyond scoring commands: see `fedoel.policies.abilities`. A plug-in may leave this out."""

    @property
    def version(self) -> str:
        """Content hash of base, prompt and adapter."""

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Number of prompt tokens of each situation; 0 without a language model."""

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's choices, normalised over them.

        Returns
        -------
        list of arrays
            One of shape ``(len(situation.choices),)`` for each situation.
        """


class Speaker(Protocol):
    """A policy that decodes freely: the last command line of the response that it writes is its action."""

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random generator."""


class Sampler(Speaker, Protocol):
    """A speaker that can write several answers to one situation."""

    def sample(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[list[Answer]]:
        """Write several answers to each situation, all sampled with its random generator, and score no commands."""


@runtime_checkable
class Weighing(Sampler, Protocol):
    """A sampler that can say how likely a text is as its answer."""

    def log_likelihoods(self, asked: Sequence[tuple[Situation, Sequence[str]]]) -> list[NDArray[np.float64]]:
        """Log-probabilities that it writes each text in a situation and nothing else, shapes ``(texts,)``.

        A text that is too long for an answer has probability 0.
        """


def check_version(policy: Policy, version: str) -> None:
    """Check that a policy is the expected version; an empty version accepts any.

    Raises
    ------
    ModelError
        If base, prompt or adapter differ.
    """
    if version and policy.version != version:
        raise ModelError(f"asked for policy {version}, but base, prompt and adapter here make {policy.version}")


def sampled(probs: NDArray[np.floating[Any]], rng: np.random.Generator) -> int:
    """Sample an index by inverse transform sampling; draws one uniform number."""
    cumulative = probs.astype(np.float64).cumsum()
    return min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(probs) - 1)
