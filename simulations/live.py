"""The live view of a run: a panel on a terminal, one line an event elsewhere. It knows nothing but events.

Where a run stands is one frozen value: events go in, a new value comes out.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TextIO

from rich import box
from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from ..protocol.config import RunConfig
from ..protocol.records.events import (
    CycleFinished,
    Decided,
    Event,
    LessonsLearned,
    Listener,
    PhaseFinished,
    PhaseProgress,
    PhaseStarted,
    RunFinished,
    RunStarted,
    TrafficCounted,
)
from ..protocol.records.summary import CycleRecord, Lesson
from ..server.summary import games_of
from .summary import lesson_words, percent, refused_words, size

BAR_WIDTH, REFRESH_PER_SECOND = 32, 4
BLOCKS, SHOWN_LESSONS, SHOWN_CYCLES = "▁▂▃▄▅▆▇█", 6, 60


@dataclass(frozen=True, slots=True)
class Progress:
    """What a view shows of a run.

    Parameters
    ----------
    zero
        The time `t` at which the phase began.
    rates
        Cycle and win rate of the last cycles.
    """

    title: str = ""
    cycles: int = 0
    cycle: int = 0
    phase: str = ""
    done: int = 0
    total: int | None = None
    zero: float = 0.0
    now: float = 0.0
    rates: tuple[tuple[int, float | None], ...] = ()
    latest: str = ""
    traffic: str = ""
    lessons: tuple[str, ...] = ()
    decision: str = ""
    finished: str = ""


def run_title(scenario: str, seed: int, clients: int, engine: str) -> str:
    """Return the title of a run's panel."""
    return f"fedoel {scenario}, seed {seed}, {clients} clients, {engine}"


def after(progress: Progress, event: Event) -> Progress:
    """Return where the run stands after an event."""
    progress = replace(progress, now=event.t)
    match event:
        case RunStarted():
            title = run_title(event.scenario, event.seed, event.clients, event.engine)
            return Progress(title, event.cycles, now=event.t)
        case PhaseStarted():
            return replace(progress, cycle=event.cycle, phase=event.phase, total=event.total, zero=progress.now, done=0)
        case PhaseProgress():
            return replace(progress, done=event.done, total=event.total)
        case TrafficCounted():
            return replace(progress, traffic=traffic_words(event))
        case LessonsLearned():
            return replace(progress, lessons=tuple(lesson_lines(event.lessons)))
        case Decided():
            return replace(progress, decision=decision_words(event))
        case CycleFinished():
            held_out = event.entry.held_out
            # A resumed run may say a cycle again: it replaces what was known of it and of later ones.
            before = [(cycle, rate) for cycle, rate in progress.rates if cycle < event.cycle]
            rate = held_out.win_rate if held_out.episodes else None
            rates = (*before, (event.cycle, rate))[-SHOWN_CYCLES:]
            return replace(progress, rates=rates, latest=_result(event.entry))
        case RunFinished():
            return replace(progress, phase="", finished=event.summary)
    return progress


def remaining(progress: Progress) -> float | None:
    """Return the seconds that the phase still takes if it goes on as it did, or None where nobody can know."""
    if not progress.total or not progress.done:
        return None
    return (progress.now - progress.zero) * max(progress.total - progress.done, 0) / progress.done


def sparkline(rates: Sequence[float | None]) -> str:
    """Draw win rates between 0 and 1 as one block each, and those that are not known as a dot."""
    return "".join("·" if rate is None else BLOCKS[min(int(rate * len(BLOCKS)), len(BLOCKS) - 1)] for rate in rates)


def traffic_words(event: TrafficCounted) -> str:
    """Say what one client sent and received on average, and how many vectors counted."""
    up, down = size(event.uplink_bytes), size(event.downlink_bytes)
    return f"{up} up, {down} down per client; {event.accepted} accepted, refused: {refused_words(event.refused)}"


def lesson_lines(lessons: Sequence[Lesson]) -> list[str]:
    """Say the strongest lessons, one a line."""
    strongest = sorted(lessons, key=lambda lesson: -abs(lesson.weight))[:SHOWN_LESSONS]
    return [f"{lesson_words(x)} ({x.weight:+.2f}, support {x.support:.1f})" for x in strongest]


def decision_words(event: Decided) -> str:
    """Say what the gate decided, and why."""
    return f"{event.decision}: {event.reason} (version {event.version})"


def plain_line(event: Event) -> str | None:
    """Say an event in one line of text, or None for those that come many times."""
    match event:
        case RunStarted():
            run = f"{event.scenario}: seed {event.seed}, engine {event.engine}"
            text = f"{run}, {event.clients} clients, {event.cycles} cycles"
        case PhaseFinished():
            text = f"cycle {event.cycle}: {event.phase} took {event.seconds:.1f} s"
        case TrafficCounted():
            text = f"cycle {event.cycle}: {traffic_words(event)}"
        case LessonsLearned():
            text = f"cycle {event.cycle}: " + ("; ".join(lesson_lines(event.lessons)) or "no lessons")
        case Decided():
            text = f"cycle {event.cycle}: {decision_words(event)}"
        case CycleFinished():
            text = f"cycle {event.cycle}: wins {_result(event.entry)}"
        case RunFinished():
            text = f"finished: {event.summary}"
        case _:
            return None
    return f"{event.t:8.1f} s  {text}"


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
        start = Progress(run_title(config.name, config.seed, config.clients, engine), config.cycles)
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

    def listen(event: Event) -> None:
        nonlocal progress
        progress = after(progress, event)

    with Live(get_renderable=lambda: panel(progress), console=console, refresh_per_second=REFRESH_PER_SECOND):
        yield listen


def panel(progress: Progress) -> RenderableType:
    """Return the panel that shows where a run stands."""
    rows = Table.grid(padding=(0, 2))
    rows.add_column(style="dim", no_wrap=True)
    rows.add_column()
    rows.add_row("cycle", f"{progress.cycle} of {progress.cycles}")
    rows.add_row(progress.phase or "phase", _bar(progress))
    rows.add_row("wins", _wins(progress))
    rows.add_row("traffic", progress.traffic or "none yet")
    rows.add_row("decision", Text(progress.decision or "no decision yet"))
    rows.add_row("lessons", Text("\n".join(progress.lessons) or "none yet"))
    return Panel(rows, title=Text(progress.title), title_align="left", box=box.ROUNDED, padding=(0, 1))


def _bar(progress: Progress) -> RenderableType:
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


def _result(record: CycleRecord) -> str:
    """Say how often a version won: ``55 % (45-65 %) of 100 held-out games``."""
    held_out = record.held_out
    if not held_out.episodes:
        return percent(held_out)
    return f"{percent(held_out)} of {held_out.episodes} {'of ' * record.by_fleet}{games_of(record)}"


def _wins(progress: Progress) -> str:
    return (
        f"{sparkline([rate for _, rate in progress.rates])}  {progress.latest}"
        if progress.rates
        else "not measured yet"
    )


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes}:{rest:02d}"
