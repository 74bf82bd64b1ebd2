"""What the learning curves of a run show, as numbers: drawn by `figures` for files and by `page.chart` for pages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from types import MappingProxyType

from ..protocol.records.summary import Stats, Summary
from .summary import measured_floors

NAMES = MappingProxyType(
    {"random": "random play", "heuristic": "heuristic", "walkthrough": "walkthrough", "tactics_only": "tactics only"}
)
LABEL_GAP = 0.062  # between labels of lines, as a win rate


@dataclass(frozen=True, slots=True)
class Curve:
    """What one panel shows: rates by cycle, and floors that do not change."""

    title: str
    cycles: tuple[int, ...]
    learned: tuple[Stats, ...]
    teacher: tuple[tuple[int, float], ...]
    tactics: tuple[float, ...]
    floors: tuple[tuple[str, float], ...]


def curves(summary: Summary) -> list[Curve]:
    """Return the overall curve, and one a family when there is more than one."""
    records, names = summary.cycles, summary.families
    # Without the floor that was measured by cycle, which is a curve.
    floors = {name: floor for name, floor in measured_floors(summary).items() if not floor.cycles}
    cycles = tuple(record.cycle for record in records)
    tactics_only = summary.floors.tactics_only
    tactics = (tactics_only.cycles or ())[: len(cycles)] if tactics_only else ()
    overall = Curve(
        title="All games",
        cycles=cycles,
        learned=tuple(record.held_out for record in records),
        teacher=tuple(
            (record.cycle, record.teacher.win_rate) for record in records if record.teacher and record.teacher.episodes
        ),
        tactics=tuple(floor.win_rate for floor in tactics),
        floors=tuple((name, floor.win_rate) for name, floor in floors.items()),
    )
    if len(names) < 2:
        return [overall]
    return [overall] + [
        Curve(
            title=name,
            cycles=cycles,
            learned=tuple(record.families[name] for record in records),
            teacher=(),
            tactics=tuple(floor.families[name].win_rate for floor in tactics),
            floors=tuple((label, floor.families[name].win_rate) for label, floor in floors.items()),
        )
        for name in names
    ]


def apart(heights: Sequence[float], gap: float, top: float = 1.04) -> list[float]:
    """Move labels so that each is at least `gap` from the next and none above `top`, keeping their order."""
    order = sorted(range(len(heights)), key=lambda i: heights[i])
    placed = list(heights)
    for below, above in pairwise(order):
        placed[above] = max(placed[above], placed[below] + gap)
    ceiling = top
    for index in reversed(order):
        placed[index] = min(placed[index], ceiling)
        ceiling = placed[index] - gap
    return placed
