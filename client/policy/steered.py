"""A torch policy with a control vector, and what its hidden states say of each command.

The vector is added to the residual stream of the moment and of the commands at one layer; scenes are left alone, so
that what is cached of them serves every context. Features of a command are read where it ends, at the same layer,
before the vector is added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.actions import ROOT, ActionTree
from ...protocol.situation import Situation
from ...protocol.steering import directions, layer_of
from .policy import LogProbs
from .reading import Load, Reading, score
from .scenes import Pool, SceneCache
from .segments import Attended
from .tokens import Ids, Row

if TYPE_CHECKING:
    from .torch_policy import TorchModel


class SteeredPolicy:
    """One policy version with the control vector of one context; zeros change nothing.

    Parameters
    ----------
    load
        Puts the version's adapter in place.
    weights
        The context, shape ``(DIMENSION,)``, in lengths of hidden states.
    """

    def __init__(
        self, model: TorchModel, load: Load, version: str, scenes: SceneCache, weights: NDArray[np.float32]
    ) -> None:
        self._model, self._load, self._scenes = model, load, scenes
        self._version, self._weights, self._lock = f"{version}+context", np.array(weights), RLock()
        self._layer = layer_of(model.trunk.layers)

    @property
    def version(self) -> str:
        return self._version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation: a vector costs none."""
        return [self._model.encoder.prompt_tokens(situation) for situation in situations]

    @property
    def model(self) -> TorchModel:
        return self._model

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        return score(self, situations)

    @contextmanager
    def reading(self, rows: Sequence[Row]) -> Iterator[Reading]:
        """Begin to read some rows with the control vector."""
        with self._lock:
            pool = self._pool(rows)
            yield Reading(self._model.trunk, self._through, len(self._model.encoder.head), rows, pool)

    def _through(self, hidden: torch.Tensor, attended: Attended) -> torch.Tensor:
        """Take hidden states through all layers, with the vector added on the way."""
        trunk = self._model.trunk
        below = trunk.run(hidden, 0, self._layer, attended)
        vector = torch.from_numpy(self._weights).to(below) @ self._directions_Wd.to(below)
        return trunk.run(below + below.norm(dim=-1, keepdim=True) * vector, self._layer, trunk.layers, attended)

    @torch.inference_mode()
    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Unit hidden states where each admissible command ends, in the subspace, shapes ``(commands, DIMENSION)``."""
        model, found = self._model, list[NDArray[np.float32]]()
        with self._lock:
            pairs = [self._whole(situation) for situation in situations]
            ends = iter([end for _, end in pairs])
            for rows in model.chunks([row for row, _ in pairs]):
                below, starts = self._below(rows)
                unit = below / below.norm(dim=-1, keepdim=True)
                for row, start in zip(rows, starts, strict=True):
                    at = torch.from_numpy(start + len(row.moment) + next(ends)).to(unit.device)
                    found.append((unit[at] @ self._directions_Wd.to(unit).T).cpu().numpy())
        return found

    def _below(self, rows: Sequence[Row]) -> tuple[torch.Tensor, list[int]]:
        """Run rows through the layers below the vector; also say where each starts."""
        model, pool = self._model, self._pool(rows)
        spans, starts = model.spans(rows, pool)
        attended = Attended(model.trunk.layout(spans, pool.keys), pool.cached)
        hidden = model.trunk.embed([token for row in rows for token in row.tokens])
        return model.trunk.run(hidden, 0, self._layer, attended), starts

    def _pool(self, rows: Sequence[Row]) -> Pool:
        self._scenes.prepare([row.scene for row in rows], self._load())
        return self._scenes.pool(row.scene for row in rows)

    def _whole(self, situation: Situation) -> tuple[Row, NDArray[np.int64]]:
        """Return a row that holds every token of every command, and the node where each command ends."""
        row = self._model.encoder.encode([situation])[0]
        tree, ends = whole_tree([self._model.encoder.ids(command) for command in situation.admissible])
        return Row(row.scene, row.moment, tree), ends

    @cached_property
    def _directions_Wd(self) -> torch.Tensor:
        return torch.from_numpy(directions(self._model.base.head.shape[1]))


def whole_tree(commands: Sequence[Ids]) -> tuple[ActionTree, NDArray[np.int64]]:
    """Return the tree of all tokens of some commands, with nothing to choose, and each command's last node."""
    nodes = sorted({command[:n] for command in commands for n in range(1, len(command) + 1)}, key=lambda p: (len(p), p))
    index = {(): ROOT} | {prefix: place for place, prefix in enumerate(nodes)}
    tokens, parents, depths = (
        np.array(column, dtype=np.int64)
        for column in zip(*((prefix[-1], index[prefix[:-1]], len(prefix)) for prefix in nodes), strict=True)
    )
    none = np.zeros(0, dtype=np.int64)
    tree = ActionTree(tokens, parents, depths, none, none, np.zeros((len(commands), 0), dtype=np.float32))
    return tree, np.array([index[tuple(command)] for command in commands], dtype=np.int64)
