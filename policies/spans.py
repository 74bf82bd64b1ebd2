"""How the tokens of a prompt's segments attend to each other, in words of numpy: backends without torch need it too."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Span:
    """One sequence of a packed row.

    Parameters
    ----------
    length
        Number of own tokens.
    positions
        Position of each own token in its prompt, shape (length,).
    context
        Indices of the keys of earlier segments that every own token may attend to.
    sees
        Which own token may attend to which, shape (length, length).
    """

    length: int
    positions: NDArray[np.int64]
    context: NDArray[np.int64]
    sees: NDArray[np.bool_]


def causal(length: int) -> NDArray[np.bool_]:
    """Each token attends to itself and to those before it."""
    return np.tril(np.ones((length, length), dtype=bool))
