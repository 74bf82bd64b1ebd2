"""A torch policy with a control vector, and what its hidden states say of each command.

The vector is added to the residual stream of the moment and of the commands at one layer; scenes are left alone, so
that what is cached of them serves every context. Features of a command are read where it ends, at the same layer,
before the vector is added.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from threading import RLock
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray

from ...protocol.situation import Situation
from ...protocol.steering import directions, layer_of
from .policy import LogProbs
from .scenes import SceneCache
from .segments import Attended
from .tokens import Row

if TYPE_CHECKING:
    from .torch_policy import Adapter, TorchModel


class SteeredPolicy:
    """One policy version with the control vector of one context; zeros change nothing.

    Parameters
    ----------
    weights
        The context, shape ``(DIMENSION,)``, in lengths of hidden states.
    """

    def __init__(
        self, model: TorchModel, adapter: Adapter, version: str, scenes: SceneCache, weights: NDArray[np.float32]
    ) -> None:
        self._model, self._adapter, self._scenes = model, adapter, scenes
        self._version, self._weights, self._lock = f"{version}+context", np.array(weights), RLock()
        self._layer = layer_of(model.trunk.layers)

    @property
    def version(self) -> str:
        return self._version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation: a vector costs none."""
        return [self._model.encoder.prompt_tokens(situation) for situation in situations]

    @torch.inference_mode()
    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's admissible commands."""
        model, answers = self._model, list[LogProbs]()
        with self._lock:
            for rows in model.chunks(model.encoder.encode(situations)):
                below, starts, attended = self._below(rows)
                vector = torch.from_numpy(self._weights).to(below) @ self._directions_Wd.to(below)
                hidden = below + below.norm(dim=-1, keepdim=True) * vector
                top = model.trunk.run(hidden, self._layer, model.trunk.layers, attended)
                answers += [part.cpu().numpy() for part in model.trunk.log_probs(top, rows, starts)]
        return answers

    @torch.inference_mode()
    def features(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Unit hidden states where each admissible command ends, in the subspace, shapes ``(commands, DIMENSION)``."""
        model, found = self._model, list[NDArray[np.float32]]()
        with self._lock:
            pairs = [model.encoder.whole(situation) for situation in situations]
            ends = iter([end for _, end in pairs])
            for rows in model.chunks([row for row, _ in pairs]):
                below, starts, _ = self._below(rows)
                unit = below / below.norm(dim=-1, keepdim=True)
                for row, start in zip(rows, starts, strict=True):
                    at = torch.from_numpy(start + len(row.moment) + next(ends)).to(unit.device)
                    found.append((unit[at] @ self._directions_Wd.to(unit).T).cpu().numpy())
        return found

    def _below(self, rows: Sequence[Row]) -> tuple[torch.Tensor, list[int], Attended]:
        """Run rows through the layers below the vector."""
        model = self._model
        self._scenes.prepare([row.scene for row in rows], model.load(self._adapter))
        pool = self._scenes.pool(row.scene for row in rows)
        spans, starts = model.spans(rows, pool)
        attended = Attended(model.trunk.layout(spans, pool.keys), pool.cached)
        hidden = model.trunk.embed([token for row in rows for token in row.tokens])
        return model.trunk.run(hidden, 0, self._layer, attended), starts, attended

    @cached_property
    def _directions_Wd(self) -> torch.Tensor:
        return torch.from_numpy(directions(self._model.base.head.shape[1]))
