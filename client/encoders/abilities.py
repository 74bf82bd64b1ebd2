"""What encoders ask of a policy beyond playing: to take a context into its prompt, or into its residual stream."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...protocol.errors import ConfigError
from ...protocol.experience import Vector
from ...protocol.play import Turn
from ...protocol.situation import Situation
from ..policy.policy import Policy


@runtime_checkable
class Promptable(Protocol):
    """A policy that can have a context in its prompt."""

    def behind(self, context: Vector | str) -> Policy:
        """Return this policy with a context in words, or as weights of a soft prompt."""
        ...


class SoftPrompted(Policy, Protocol):
    """A policy behind a soft prompt."""

    def gradients(self, turns: Sequence[Turn]) -> NDArray[np.float32]:
        """Gradients of the log-probabilities of the commands given, shape ``(len(turns), dimension)``."""
        ...


@runtime_checkable
class Steerable(Protocol):
    """A policy that can have a control vector."""

    def steered(self, context: Vector) -> Policy:
        """Return this policy with the control vector of a context."""
        ...


class Steered(Policy, Protocol):
    """A policy with a control vector."""

    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Hidden states where each admissible command ends, in the subspace, shapes ``(commands, dimension)``."""
        ...


def behind(policy: Policy, context: Vector | str) -> Policy:
    """Put a context into a policy's prompt.

    Raises
    ------
    ConfigError
        If the policy has no prompt.
    """
    if not isinstance(policy, Promptable):
        raise ConfigError("a context in the prompt needs policy.backend 'torch': other policies read no prompt")
    return policy.behind(context)


def steered(policy: Policy, context: Vector) -> Policy:
    """Give a policy a control vector.

    Raises
    ------
    ConfigError
        If the policy has no residual stream.
    """
    if not isinstance(policy, Steerable):
        raise ConfigError("a control vector needs policy.backend 'torch' or 'llama': others have no residual stream")
    return policy.steered(context)
