"""The learning curve: held-out win rate by cycle with its 95 % band, the teacher, and the floors, labelled directly.

Figures are made without pyplot, so nothing global changes.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine
from matplotlib.ticker import PercentFormatter

from ..protocol.host.files import write_whole
from ..protocol.records.summary import Summary
from .curves import LABEL_GAP, NAMES, Curve, apart, curves
from .summary import NOT_MEASURED

# Okabe and Ito's blue, vermilion and green, dark enough for text: told apart with any colour vision. Line styles
# and labels say the same again.
LEARNED, TEACHER, TACTICS = "#0072b2", "#b84f00", "#00795a"
INK, MUTED, GRID = "#1b2530", "#5f6b76", "#dfe4e8"
DASHES: Mapping[str, Any] = MappingProxyType(
    {"random": (0, (1, 2)), "heuristic": (0, (5, 2)), "walkthrough": "-", "tactics_only": (0, (3, 1, 1, 1))}
)
STYLE: Mapping[str, Any] = MappingProxyType({
    "font.family": ["DejaVu Sans"], "font.size": 9.5, "text.color": INK, "axes.labelcolor": MUTED,
    "axes.edgecolor": GRID, "xtick.color": MUTED, "ytick.color": MUTED, "svg.hashsalt": "fedoel",
    "svg.fonttype": "path",
})  # fmt: skip
# Of several runs in one figure, in the same palette.
COLOURS = (LEARNED, TEACHER, TACTICS, "#8a5a83", "#7a6a00", "#3f6b8f", "#55606b")


def draw_learning_curve(summary: Summary, folder: Path) -> tuple[Path, Path]:
    """Write ``learning-curve.png`` and ``learning-curve.svg`` into `folder`, and return their paths."""
    return save_figure(lambda: _curves_figure(summary), folder / "learning-curve")


def save_figure(make: Callable[[], Figure], stem: Path) -> tuple[Path, Path]:
    """Write a figure as PNG and SVG, and return their paths."""
    png, svg = (stem.with_suffix(suffix) for suffix in (".png", ".svg"))
    for path in (png, svg):
        write_whole(path, _drawn(make, path.suffix[1:], "white"))
    return png, svg


def frame_rates(axes: Axes, grid: Literal["both", "y"] = "y") -> None:
    """Scale the vertical axis for win rates, in percent, and draw a grid instead of a box."""
    axes.set_ylim(-0.02, 1.05)
    axes.yaxis.set_major_formatter(PercentFormatter(1, symbol=" %"))
    axes.grid(axis=grid, color=GRID, linewidth=0.7)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.tick_params(length=0)


def label_ends(axes: Axes, lines: Sequence[tuple[str, float, str]], bold: str = "") -> None:
    """Write name and last value of lines beside their ends, moved apart where they would touch.

    Parameters
    ----------
    lines
        Name, last value and colour of each.
    """
    for (name, rate, colour), height in zip(lines, apart([rate for _, rate, _ in lines], LABEL_GAP), strict=True):
        axes.annotate(
            f"{name} {100 * rate:.0f} %", (1, height), xycoords=("axes fraction", "data"), xytext=(6, 0),
            textcoords="offset points", color=colour, va="center", fontweight="bold" if name == bold else "normal",
            annotation_clip=False,
        )  # fmt: skip


def _drawn(make: Callable[[], Figure], kind: str, background: str) -> bytes:
    buffer = io.BytesIO()
    settings: Any = dict(STYLE)
    with mpl.rc_context(settings):
        # No date: the same results give the same file.
        metadata = {"Date": None} if kind == "svg" else None
        make().savefig(buffer, format=kind, dpi=200, facecolor=background, metadata=metadata)
    return buffer.getvalue()


def _curves_figure(summary: Summary) -> Figure:
    games = "The fleet's own games won" if summary.by_fleet else "Held-out games won"
    return _figure(curves(summary), games, f"{summary.scenario}, seed {summary.seed}")


def _figure(panels: Sequence[Curve], title: str, subtitle: str) -> Figure:
    small = panels[1:]
    columns = min(len(small), 4) or 1
    rows = -(-len(small) // columns)
    figure = Figure(figsize=(7.6, 4.2 + 2.2 * rows), layout=ConstrainedLayoutEngine(w_pad=0.06, h_pad=0.08))
    grid = figure.add_gridspec(1 + rows, columns, height_ratios=[3.9, *[2.0] * rows])
    main = figure.add_subplot(grid[0, :])
    _draw(main, panels[0])
    _label_lines(main, panels[0])
    main.set_title(title, loc="left", fontsize=12.5, fontweight="bold", color=INK, pad=22)
    main.text(0, 1.035, f"{subtitle}; band: 95 % interval", transform=main.transAxes, color=MUTED)
    main.set_xlabel("cycle")
    for number, curve in enumerate(small):
        axes = figure.add_subplot(grid[1 + number // columns, number % columns])
        _draw(axes, curve)
        axes.set_title(curve.title, loc="left", fontsize=9.5, color=INK)
        axes.tick_params(labelleft=number % columns == 0)
    return figure


def _draw(axes: Axes, curve: Curve) -> None:
    for name, rate in curve.floors:
        axes.axhline(rate, color=MUTED, linewidth=0.9, linestyle=DASHES[name], zorder=1)
    _draw_learned(axes, curve)
    axes.plot(curve.cycles[: len(curve.tactics)], curve.tactics, color=TACTICS, linestyle="--", linewidth=1.5, zorder=3)
    if curve.teacher:
        cycles, teacher = zip(*curve.teacher, strict=True)
        axes.plot(cycles, teacher, "D", color=TEACHER, markersize=5.5, zorder=4)
    frame_rates(axes)
    axes.set_xlim(curve.cycles[0] - 0.12, max(curve.cycles[-1], 1) + 0.12)
    axes.set_xticks(curve.cycles)
    axes.set_yticks([0, 0.25, 0.5, 0.75, 1])
    axes.set_axisbelow(True)


def _draw_learned(axes: Axes, curve: Curve) -> None:
    """Draw the rates that were measured, or say that there are none."""
    measured = [(cycle, stats) for cycle, stats in zip(curve.cycles, curve.learned, strict=True) if stats.episodes]
    if not measured:
        axes.text(0.5, 0.55, NOT_MEASURED, transform=axes.transAxes, color=MUTED, ha="center", va="center")
        return
    cycles, learned = zip(*measured, strict=True)
    rates, low, high = zip(*((stats.win_rate, stats.low, stats.high) for stats in learned), strict=True)
    axes.fill_between(cycles, low, high, color=LEARNED, alpha=0.16, linewidth=0, zorder=2)
    axes.plot(cycles, rates, color=LEARNED, linewidth=2.2, marker="o", markersize=5.5, zorder=5)
    if len(rates) == 1:
        axes.vlines(cycles, low, high, color=LEARNED, linewidth=2, zorder=4)


def _label_lines(axes: Axes, curve: Curve) -> None:
    """Write each line's name and last value beside its end, moved apart where they would touch."""
    lines = [(NAMES[name], rate, MUTED) for name, rate in curve.floors]
    if curve.learned[-1].episodes:
        lines.append(("learned", curve.learned[-1].win_rate, LEARNED))
    if curve.tactics:
        lines.append((NAMES["tactics_only"], curve.tactics[-1], TACTICS))
    if curve.teacher:
        lines.append(("teacher", curve.teacher[-1][1], TEACHER))
    label_ends(axes, lines, bold="learned")
