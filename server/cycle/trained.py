"""An adapter that training has made, as the stages `warm start` and `distil` keep it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from ..learner import Adapter
from .phases import Form, Outcome

PREFIX = "adapter/"


@dataclass(frozen=True, slots=True)
class Trained:
    """A candidate for the next version.

    Parameters
    ----------
    views
        Mean divergence of the student from the teacher at the end of training, without the context and with it.
    """

    version: str
    adapter: Adapter
    views: Mapping[str, float] = field(default_factory=dict)


def _write(trained: Trained) -> Outcome:
    values = {"version": trained.version, **({"views": dict(trained.views)} if trained.views else {})}
    return Outcome(values, {f"{PREFIX}{name}": array for name, array in trained.adapter.items()})


def _read(outcome: Outcome) -> Trained:
    adapter: dict[str, NDArray[Any]] = {
        name.removeprefix(PREFIX): array for name, array in outcome.arrays.items() if name.startswith(PREFIX)
    }
    return Trained(outcome.values["version"], adapter, outcome.values.get("views", {}))


TRAINED = Form(_write, _read)
