"""A llama.cpp policy with a control vector, and what its hidden states say of each command.

As with the torch backend, the vector acts on the moment and the commands, and features are read below it. What differs:
llama.cpp adds one and the same vector at every token, where the torch backend scales it with each token's own hidden
state. Here it has the length of a usual hidden state, the mean over a public prompt; in SmolLM2-135M tokens differ from
their mean by a tenth.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from ...protocol.situation import Memory, Situation
from ...protocol.steering import directions, layer_of
from .llama_branches import branched, rounds
from .llama_hidden import HiddenStates
from .llama_prefixes import Prefixes
from .policy import LogProbs
from .tokens import Row

if TYPE_CHECKING:
    from .llama_policy import LlamaModel, LlamaPolicy

Floats = NDArray[np.float32]
USUAL = Memory("Take the coin.", 9).see(
    "-= Kitchen =-\nYou are in a kitchen. There is a table here, and a coin on it. You can go east.",
    ("examine table", "go east", "inventory", "look", "take coin from table"),
    0,
)


class Steering:
    """The residual stream of one model, where control vectors are added: hidden states, and their subspace."""

    def __init__(self, model: LlamaModel) -> None:
        self._model, self.layer = model, layer_of(model.file.layers)
        self.directions_Wd = directions(model.file.hidden)
        self._hidden = HiddenStates(model.file, model.threads, model.cells, self.layer)
        self._prefixes = Prefixes(self._hidden.context, model.encoder.head)

    def adapt(self, adapter: Any) -> None:
        """Put an adapter in place here, too."""
        self._hidden.context.adapt(adapter)
        self._prefixes.clear()

    def hidden(self, rows: Sequence[Row]) -> list[Floats]:
        """Hidden states of each row's tokens below the layer, shapes (tokens, hidden)."""
        found: list[Floats] = []
        for batch in rounds(rows, self._model.cells - len(self._model.encoder.head)):
            self._prefixes.prepare((row.scene for row in batch), room=sum(len(row.tokens) for row in batch))
            with branched(self._hidden.context, self._prefixes, batch, asks=False) as tokens:
                states = self._hidden.states(tokens)
            found += np.split(states, np.cumsum([len(row.tokens) for row in batch])[:-1])
        return found

    def usual_norm(self) -> float:
        """Length of a usual hidden state under the adapter that is in place."""
        [states] = self.hidden(self._model.encoder.encode([USUAL]))
        return float(np.linalg.norm(states, axis=1).mean())


class SteeredLlamaPolicy:
    """One policy version with the control vector of one context; zeros change nothing.

    Parameters
    ----------
    owner
        The version without the vector, with which scenes are shared.
    weights
        The context, shape ``(DIMENSION,)``, in lengths of hidden states.
    """

    def __init__(self, model: LlamaModel, owner: LlamaPolicy, weights: Floats) -> None:
        self._model, self._owner, self._weights = model, owner, np.array(weights)

    @property
    def version(self) -> str:
        return f"{self._owner.version}+context"

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation: a vector costs none."""
        return self._owner.tokens(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        with self._owner.serving():
            return self._model.score(self._model.encoder.encode(situations), self._vector)

    def features(self, situations: Sequence[Situation]) -> list[Floats]:
        """Unit hidden states where each admissible command ends, in the subspace, shapes ``(commands, DIMENSION)``."""
        pairs = [self._model.encoder.whole(situation) for situation in situations]
        with self._owner.serving():
            steering, found = self._model.steering, list[Floats]()
            for (row, ends), states in zip(pairs, steering.hidden([row for row, _ in pairs]), strict=True):
                at = states[len(row.moment) + ends]
                found.append(at / np.linalg.norm(at, axis=1, keepdims=True) @ steering.directions_Wd.T)
        return found

    @cached_property
    def _vector(self) -> Floats:
        """The vector in units of the residual stream, shape (hidden,); the adapter must be in place."""
        steering = self._model.steering
        vector: Floats = np.float32(steering.usual_norm()) * (self._weights @ steering.directions_Wd)
        return vector
