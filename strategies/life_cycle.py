"""What surrounds the rounds of a run on the server: its start, its resumption, and the end of every cycle."""

from __future__ import annotations

from typing import Protocol

from .rounds import Rounds
from .safeguards import Safeguards


class LifeCycle(Protocol):
    """The life of a run. Each step is kept on disk when it ends, so that a run can be resumed."""

    def start(self) -> None:
        """Make or load the first version (the warm start), and evaluate it: cycle 0."""
        ...

    def collected(self, cycle: int, exchange: int) -> bool:
        """Whether this exchange is on disk already, from a run that was interrupted."""
        ...

    def consolidate(self, cycle: int) -> None:
        """End a cycle: context, distillation, gate, promotion and evaluation for what was collected."""
        ...


class ServerSide(Protocol):
    """What a strategy is given of the server."""

    @property
    def rounds(self) -> Rounds:
        """Requests, and what came back."""
        ...

    @property
    def life(self) -> LifeCycle:
        """The life of the run."""
        ...

    @property
    def safeguards(self) -> Safeguards:
        """What protects the cohort."""
        ...
