"""The live view of a run: a panel on a terminal, one line an event elsewhere. It knows nothing but events.

rich is imported when a panel is opened, not before: ``--help`` must not wait for it.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ..protocol.records.events import Event, Listener
from .progress import Progress, after, plain_line, remaining, sparkline

if TYPE_CHECKING:
    from rich.console import Console, RenderableType

    from ..protocol.config import RunConfig

BAR_WIDTH = 32
REFRESH_PER_SECOND = 4


@contextmanager
def live_view(
    config: RunConfig,
    engine: str = "inprocess",
    stream: TextIO | None = None,
    *,
    quiet: bool = False,
    verbose: bool = False,
) -> Iterator[Listener]:
    """Show a run while it goes on.

    Parameters
    ----------
    config, engine
        What a panel shows before the first event.
    stream
        Where to write; standard output if left out. A panel is drawn if it is a terminal.
    quiet
        Write nothing.
    verbose
        Write lines on a terminal, too, since messages of libraries come in between.

    Yields
    ------
    callable
        The listener to give to an event log.
    """
    stream = stream or sys.stdout
    if quiet:
        yield lambda event: None
    elif stream.isatty() and not verbose:
        from rich.console import Console

        start = Progress(config.name, config.seed, engine, config.clients, config.cycles)
        with panel_view(Console(file=stream), start) as listen:
            yield listen
    else:
        yield plain_view(stream)


def plain_view(stream: TextIO) -> Listener:
    """Return a listener that writes one line an event, without the progress within phases."""

    def listen(event: Event) -> None:
        if (line := plain_line(event)) is not None:
            print(line, file=stream, flush=True)

    return listen


@contextmanager
def panel_view(console: Console, progress: Progress) -> Iterator[Listener]:
    """Draw a panel that starts with `progress` and follows the events given to the listener."""
    from rich.live import Live

    def listen(event: Event) -> None:
        nonlocal progress
        progress = after(progress, event)

    with Live(get_renderable=lambda: panel(progress), console=console, refresh_per_second=REFRESH_PER_SECOND):
        yield listen


def panel(progress: Progress) -> RenderableType:
    """Return the panel that shows where a run stands."""
    from rich import box
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    rows.add_row("cycle", f"{progress.cycle} of {progress.cycles}")
    rows.add_row(progress.phase or "phase", _bar(progress))
    rows.add_row("held-out wins", _wins(progress))
    rows.add_row("traffic", progress.traffic or "none yet")
    rows.add_row("decision", Text(progress.decision or "no decision yet"))
    rows.add_row("lessons", Text("\n".join(progress.lessons) or "none yet"))
    title = f"fedoel {progress.scenario}, seed {progress.seed}, {progress.clients} clients, {progress.engine}"
    return Panel(rows, title=Text(title), title_align="left", box=box.ROUNDED, padding=(0, 1))


def _bar(progress: Progress) -> RenderableType:
    from rich.progress_bar import ProgressBar
    from rich.table import Table

    if progress.finished:
        return f"finished after {_clock(progress.now)}"
    if not progress.phase:
        return "starting"
    line = Table.grid(padding=(0, 1))
    left = remaining(progress)
    counted = f"{progress.done}/{progress.total}" if progress.total else str(progress.done or "")
    # Without a total nobody knows how far the phase is: the bar pulses.
    line.add_row(
        ProgressBar(total=progress.total or None, completed=progress.done, width=BAR_WIDTH),
        counted,
        "" if left is None else f"{_clock(left)} left",
    )
    return line


def _wins(progress: Progress) -> str:
    return f"{sparkline(progress.rates)}  {progress.latest}" if progress.rates else "not measured yet"


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
