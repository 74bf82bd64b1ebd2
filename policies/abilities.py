"""What encoders ask of a policy beyond playing: to take a context into prompt or residual stream, or to write text.

An encoder names its `required_abilities`, and a backend the `abilities` of its policies, by these names.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ..protocol.errors import ConfigError
from ..protocol.play import Turn
from ..protocol.situation import Situation
from .policy import Policy
from .spaces import ControlVector, SoftPrompt

PROMPT, RESIDUAL, WRITING = "a prompt", "a residual stream", "free text"
ABILITIES = frozenset({PROMPT, RESIDUAL, WRITING})


@runtime_checkable
class Promptable(Protocol):
    """A policy that can have a context in its prompt."""

    def behind(self, context: SoftPrompt | str) -> Policy:
        """Return this policy with a context in words, or as a soft prompt."""
        ...

    def length(self, text: str) -> int:
        """Tokens of a text."""
        ...


class SoftPrompted(Policy, Protocol):
    """A policy behind a soft prompt."""

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, shape ``(len(turns), dimension)``."""
        ...


@runtime_checkable
class Steerable(Protocol):
    """A policy that can have a control vector."""

    def steered(self, context: ControlVector) -> Policy:
        """Return this policy with the control vectors of a context."""
        ...


class Steered(Policy, Protocol):
    """A policy with a control vector."""

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """What would steer towards each admissible command, shapes ``(commands, dimension)``."""
        ...


@runtime_checkable
class Author(Protocol):
    """A policy that can write about what it is told."""

    def tell(self, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
        """Answer some questions in at most so many tokens, each sampled with its own random stream."""
        ...


def tell(policy: Policy, asked: Sequence[tuple[str, np.random.Generator]], longest: int) -> list[str]:
    """Let a policy answer some questions.

    Raises
    ------
    ConfigError
        If it cannot write.
    """
    if not isinstance(policy, Author):
        raise ConfigError("writing lessons needs policy.backend 'torch': other policies write no text")
    return policy.tell(asked, longest)


def length(policy: Policy, text: str) -> int:
    """Tokens of a text for a policy that reads; words for one that does not."""
    return policy.length(text) if isinstance(policy, Promptable) else len(text.split())


def behind(policy: Policy, context: SoftPrompt | str) -> Policy:
    """Put a context into a policy's prompt.

    Raises
    ------
    ConfigError
        If the policy has no prompt.
    """
    if not isinstance(policy, Promptable):
        raise ConfigError("a context in the prompt needs policy.backend 'torch': other policies read no prompt")
    return policy.behind(context)


def steered(policy: Policy, context: ControlVector) -> Policy:
    """Give a policy control vectors.

    Raises
    ------
    ConfigError
        If the policy has no residual stream.
    """
    if not isinstance(policy, Steerable):
        raise ConfigError("a control vector needs policy.backend 'torch' or 'llama': others have no residual stream")
    return policy.steered(context)
