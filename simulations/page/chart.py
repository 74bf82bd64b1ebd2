"""The learning curves as inline SVG that fits every width: all positions are percentages of the plot.

Text and marks keep their size on a phone, and colours come from the style sheet by class, since the page allows no
inline styles. The template draws what is computed here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ...protocol.records.summary import Stats, Summary
from ..curves import LABEL_GAP, NAMES, Curve, apart, curves
from ..summary import percent

TOP, BOTTOM = 1.06, -0.02  # win rates at the edges of the plot
INSET = 4.0  # percent of the width between an edge of the plot and the first or last cycle
TICKS = (0.0, 0.25, 0.5, 0.75, 1.0)
MOST_LABELS = 12  # cycles that are labelled


@dataclass(frozen=True, slots=True)
class Mark:
    """A point, a label or a tick: its position in percent from the left and from the top, and its text."""

    x: float
    y: float
    text: str
    style: str = ""
    low: float = 0.0
    high: float = 0.0


@dataclass(frozen=True, slots=True)
class Chart:
    """What the template draws of one curve.

    Parameters
    ----------
    title, words
        Name of the games, and what the chart shows in words.
    ticks, cycles
        Labels of the two axes.
    points, teacher
        Measured rates with the ends of their intervals, and the teacher's.
    names
        Labels beside the ends of lines.
    floors
        Horizontal lines, styled by the name of the floor.
    band, learned, tactics
        Corners as ``x,y x,y``, empty where there is nothing to draw.
    """

    title: str
    words: str
    ticks: Sequence[Mark]
    cycles: Sequence[Mark]
    points: Sequence[Mark]
    teacher: Sequence[Mark]
    names: Sequence[Mark]
    floors: Sequence[Mark]
    band: str
    learned: str
    tactics: str


def charts(summary: Summary) -> list[Chart]:
    """Return the chart of all games, and one a family where there are several."""
    return [chart(curve) for curve in curves(summary)]


def chart(curve: Curve) -> Chart:
    """Compute the positions of one curve."""
    across = _Across(curve.cycles)
    measured = [(c, stats) for c, stats in zip(curve.cycles, curve.learned, strict=True) if stats.episodes]
    points = [
        Mark(across(c), _down(s.win_rate), f"cycle {c}: {percent(s)}", low=_down(s.low), high=_down(s.high))
        for c, s in measured
    ]
    every = -(-len(curve.cycles) // MOST_LABELS)
    return Chart(
        title=curve.title,
        words=_words(curve, measured),
        ticks=[Mark(0, _down(rate), f"{rate:.0%}".replace("%", " %")) for rate in TICKS],
        cycles=[Mark(across(c), 100, str(c)) for c in curve.cycles[::every]],
        points=points,
        teacher=[Mark(across(c), _down(rate), f"teacher of cycle {c}: {rate:.0%}") for c, rate in curve.teacher],
        names=_names(curve),
        floors=[Mark(0, _down(rate), f"{NAMES[name]}: {rate:.0%}", name) for name, rate in curve.floors],
        band=_corners([(p.x, p.high) for p in points] + [(p.x, p.low) for p in reversed(points)]),
        learned=_corners([(p.x, p.y) for p in points]),
        tactics=_corners([(across(c), _down(rate)) for c, rate in zip(curve.cycles, curve.tactics, strict=False)]),
    )


@dataclass(frozen=True, slots=True)
class _Across:
    """Maps a cycle to percent from the left."""

    cycles: Sequence[int]

    def __call__(self, cycle: int) -> float:
        first, last = self.cycles[0], self.cycles[-1]
        share = (cycle - first) / (last - first) if last > first else 0.5
        return round(INSET + share * (100 - 2 * INSET), 3)


def _down(rate: float) -> float:
    """Map a win rate to percent from the top."""
    return round(100 * (TOP - rate) / (TOP - BOTTOM), 3)


def _corners(points: Sequence[tuple[float, float]]) -> str:
    return " ".join(f"{x:g},{y:g}" for x, y in points)


def _names(curve: Curve) -> list[Mark]:
    """Return name and last value of each line, moved apart where they would touch."""
    lines = [(NAMES[name], rate, "floor") for name, rate in curve.floors]
    if curve.tactics:
        lines.append((NAMES["tactics_only"], curve.tactics[-1], "tactics"))
    if curve.teacher:
        lines.append(("teacher", curve.teacher[-1][1], "teacher"))
    if curve.learned[-1].episodes:
        lines.append(("learned", curve.learned[-1].win_rate, "learned"))
    heights = apart([rate for _, rate, _ in lines], LABEL_GAP, top=TOP - LABEL_GAP / 2)
    return [
        Mark(0, _down(height), f"{name} {rate:.0%}".replace("%", " %"), style)
        for (name, rate, style), height in zip(lines, heights, strict=True)
    ]


def _words(curve: Curve, measured: Sequence[tuple[int, Stats]]) -> str:
    """Say the curve for those who do not see it."""
    learned = ", ".join(f"cycle {cycle} {percent(stats)}" for cycle, stats in measured) or "not measured"
    floors = "".join(f"; {NAMES[name]} {rate:.0%}" for name, rate in curve.floors)
    return f"Win rate of {curve.title[0].lower()}{curve.title[1:]}: {learned}{floors}"
