"""The policy protocol: anything that can say how likely each admissible command is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ModelError
from ..protocol.situation import Situation

LogProbs = NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Answer:
    """What a policy wrote in one situation, its tokens, and how likely it finds the admissible commands, if it says."""

    text: str
    tokens: tuple[int, ...]
    log_probs: LogProbs


class Policy(Protocol):
    """A version of the player. Calls may batch; answers do not depend on what else is in the batch."""

    @property
    def abilities(self) -> frozenset[str]:
        """What it can do beyond scoring commands: see `fedoel.policies.abilities`. A plug-in may leave this out."""
        ...

    @property
    def version(self) -> str:
        """Content hash of base, prompt and adapter."""
        ...

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens that the policy has to take in for each situation; 0 without a language model."""
        ...

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands, normalised over them.

        Returns
        -------
        list of arrays
            One of shape ``(len(situation.admissible),)`` for each situation.
        """
        ...


class Speaker(Protocol):
    """A policy that writes its answers freely: the last command line of what it writes counts."""

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        """Write an answer to each situation, sampled with its own random stream."""
        ...


def check_version(policy: Policy, version: str) -> None:
    """Refuse a policy that is not the version that was meant; an empty version is any.

    Raises
    ------
    ModelError
        If base, prompt or adapter differ.
    """
    if version and policy.version != version:
        raise ModelError(f"asked for policy {version}, but base, prompt and adapter here make {policy.version}")


def sampled(probs: NDArray[np.floating[Any]], rng: np.random.Generator) -> int:
    """Sample an index by inverting the cumulative distribution: one uniform number."""
    cumulative = probs.astype(np.float64).cumsum()
    return min(int(np.searchsorted(cumulative, rng.random() * cumulative[-1], side="right")), len(probs) - 1)
