"""What a policy can do beyond scoring commands: take a context into prompt or residual stream, embed, or write text.

A policy says what it can do in its `abilities`, by the names below. A wrapper that hands calls on says what the policy
inside says. The functions below check this value before they call a method: the methods of a wrapper prove nothing.
A policy without the attribute, such as a plug-in that only scores commands, has no abilities.

An encoder names its `required_abilities`. A backend names in `abilities` what the policies that it loads can do;
`ANSWERS` is not among them, because it depends on the run's decoding.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, cast, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.play import Turn
from ..protocol.situation import Situation
from .policy import LogProbs, Policy, Speaker
from .spaces import ControlVector, SoftPrompt

PROMPT, RESIDUAL, WRITING = "a prompt", "a residual stream", "free text"
EMBEDDING = "hidden states of commands"
ABILITIES = frozenset({PROMPT, RESIDUAL, WRITING, EMBEDDING})
"""What encoders may need and backends may offer."""
ANSWERS = "answers in free text"
"""The policy is a `Speaker`: it plays by writing instead of choosing among the commands."""


class Promptable(Policy, Protocol):
    """A policy with the ability `PROMPT`: it can have a context in its prompt."""

    def behind(self, context: SoftPrompt | str) -> Policy:
        """Return this policy with a context in its prompt, in words or as a soft prompt."""

    def length(self, text: str) -> int:
        """Return how many tokens a text has."""


class SoftPrompted(Policy, Protocol):
    """A policy behind a soft prompt."""

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, shape ``(len(turns), dimension)``."""


class Steerable(Policy, Protocol):
    """A policy with the ability `RESIDUAL`: it can have a control vector."""

    def steered(self, context: ControlVector) -> Policy:
        """Return this policy with the control vectors of a context."""


class Steered(Policy, Protocol):
    """A policy with a control vector."""

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Directions in the hidden state that make each command more likely, shapes ``(commands, dimension)``."""


class Embedding(Policy, Protocol):
    """A policy with the ability `EMBEDDING`: it can read what a frozen layer computes of a command.

    The embedding of a command is the hidden state at its last token, behind the prompt, below the first layer with an
    adapter: the same for all versions.
    """

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Embeddings of each situation's choices, shapes ``(A, hidden)``."""

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Log-probabilities, as from `score`, and embeddings, which share the pass through the frozen layers."""


@runtime_checkable
class Rewarding(Policy, Protocol):
    """A policy under a context that is a reward: pi(a | x) exp(reward(x, a)) / Z(x), with pi the policy without it."""

    def rewards(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Reward of each situation's choices, shapes ``(A,)``."""


class Author(Policy, Protocol):
    """A policy with the ability `WRITING`: it can answer questions in free text."""

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Answer each question in at most `longest` tokens, sampled with the question's own random stream."""


def abilities_of(policy: Policy) -> frozenset[str]:
    """Return what a policy says that it can do; nothing if it says nothing."""
    return getattr(policy, "abilities", frozenset())


def speaker(policy: Policy) -> Speaker | None:
    """Return the policy as a speaker if it plays by writing, else None."""
    return cast(Speaker, policy) if ANSWERS in abilities_of(policy) else None


def tell(policy: Policy, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
    """Let a policy answer questions: see `Author.tell`.

    Raises
    ------
    ConfigError
        If it cannot write.
    """
    _check(policy, WRITING, "writing lessons needs policy.backend 'torch': other policies write no text")
    return cast(Author, policy).tell(asked, longest)


def length(policy: Policy, text: str) -> int:
    """Return how many tokens a text has for a policy with a prompt, and how many words for any other."""
    return cast(Promptable, policy).length(text) if PROMPT in abilities_of(policy) else len(text.split())


def behind(policy: Policy, context: SoftPrompt | str) -> Policy:
    """Put a context into a policy's prompt.

    Raises
    ------
    ConfigError
        If the policy has no prompt.
    """
    _check(policy, PROMPT, "a context in the prompt needs policy.backend 'torch': other policies read no prompt")
    return cast(Promptable, policy).behind(context)


def steered(policy: Policy, context: ControlVector) -> Policy:
    """Give a policy control vectors.

    Raises
    ------
    ConfigError
        If the policy has no residual stream.
    """
    _check(policy, RESIDUAL, "a control vector needs policy.backend 'torch' or 'llama': others have no residual stream")
    return cast(Steerable, policy).steered(context)


def embedding(policy: Policy) -> Embedding:
    """Return the policy as one that embeds commands.

    Raises
    ------
    ConfigError
        If it does not.
    """
    _check(policy, EMBEDDING, "embeddings need policy.backend 'torch' or 'llama': others have no hidden states")
    return cast(Embedding, policy)


def _check(policy: Policy, ability: str, remedy: str) -> None:
    if ability not in abilities_of(policy):
        raise ConfigError(remedy)
