"""What a run carries from one cycle to the next. It is rebuilt from the outcomes on disk when a run is resumed."""

from __future__ import annotations

from dataclasses import dataclass

from ...protocol.records.summary import Summary
from ..gate import Evidence
from ..learner import Adapter


@dataclass(frozen=True, slots=True)
class Version:
    """The policy version that devices play: its name and its adapter."""

    name: str
    adapter: Adapter


@dataclass(frozen=True, slots=True)
class State:
    """The state of a run after a cycle.

    Parameters
    ----------
    evidence
        What the gate has seen of the version.
    summary
        The run so far, as `summary.json` says it.
    """

    version: Version
    evidence: Evidence
    summary: Summary
