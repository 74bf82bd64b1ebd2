"""What an encoder asks of a policy that takes a context into its prompt."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from ...protocol.errors import ConfigError
from ...protocol.experience import Vector
from ...protocol.play import Turn
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
