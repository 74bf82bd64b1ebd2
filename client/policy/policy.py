"""The policy protocol: anything that can say how likely each admissible command is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Situation

LogProbs = NDArray[np.float32]


class Policy(Protocol):
    """A version of the player. Calls may batch; answers do not depend on what else is in the batch."""

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
