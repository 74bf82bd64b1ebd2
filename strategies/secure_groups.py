"""Secure sums over small groups: the server sees a sum over each group, and no single vector.

A device that lies spoils its own group only (group-wise robustness, as in Xhemrishi et al. 2023, arXiv 2306.02907).
Small groups are more robust and hide a device among fewer: that is the choice that `group_size` makes.
"""

from __future__ import annotations

from typing import Any

from ..protocol.errors import ConfigError
from ..protocol.experience import VectorSpec
from ..protocol.privacy.plan import Plan
from .secure_mean import SecureMean

OUTLYING = "group left out"
SMALLEST = 3


class SecureGroups(SecureMean):
    """What secure sums over groups have in common; no noise is added. `combine` makes one aggregate of them.

    Parameters
    ----------
    group_size
        Devices in a group, at least; a vector hides among so many.
    """

    mechanisms = frozenset({"none"})

    def __init__(self, *arguments: Any, group_size: int = 4, **settings: Any) -> None:
        super().__init__(*arguments, **settings)
        if group_size < SMALLEST:
            raise ConfigError(f"group-size must be at least {SMALLEST}, not {group_size}")
        self.group_size = group_size

    def check(self, spec: VectorSpec) -> None:
        """Refuse groups in which secrets would not be safe, and cohorts that are one group."""
        safeguards = self.consolidator.safeguards
        if safeguards.sample < 2 * self.group_size:
            raise ConfigError(
                f"{safeguards.sample} devices an exchange do not make two groups of {self.group_size}: raise clients "
                "or strategy.fraction-train, or lower group-size in strategy.options"
            )
        self.check_graph(self.group_size)

    def plan(self, spec: VectorSpec) -> Plan:
        """Return the plan of one group's sum: that of the run, for as many devices as a group may have."""
        whole = self.consolidator.safeguards.plan(spec)
        least = max(2, int(self.group_size * (1 - self.consolidator.safeguards.max_dropout)))
        return Plan.make(whole.parts, 2 * self.group_size - 1, least, 0.0)

    def groups(self, cohort: list[int]) -> list[list[int]]:
        """Deal a cohort, which comes in random order, into groups of at least `group_size`."""
        count = max(1, len(cohort) // self.group_size)
        return [cohort[start::count] for start in range(count)]
