"""Everything about a run in one HTML file that needs nothing else, read with any browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from ..protocol.host.files import write_whole
from ..protocol.records.events import Event
from ..protocol.records.summary import Stats, Summary
from ..server.events import LOG, read_events, seconds_by_phase
from ..server.summary import games_of
from .figures import inline_svg
from .summary import (
    headline,
    lesson_words,
    load_summary,
    measured_floors,
    percent,
    refused_words,
    size,
    wins_column,
)

TEMPLATE = "report.html.j2"


@dataclass(frozen=True, slots=True)
class Table:
    """A table of the report. The template sets numbers to the right, and floats with four digits."""

    head: Sequence[str]
    rows: Sequence[Sequence[object]]


def write_report(run: Path) -> Path:
    """Write ``report.html`` into the folder of a run.

    Parameters
    ----------
    run
        A folder with ``summary.json`` and ``events.jsonl``.

    Returns
    -------
    Path
        The report.

    Raises
    ------
    ConfigError
        If one of the two is missing or damaged.
    FedoelError
        If the report cannot be written.
    """
    path = run / "report.html"
    write_whole(path, _page(load_summary(run), read_events(run / LOG)))
    return path


def _page(summary: Summary, events: Sequence[Event]) -> str:
    title = f"{summary.scenario}, seed {summary.seed}"
    private = _privacy(summary)
    names, by_fleet = summary.transfer, summary.by_fleet
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent), autoescape=True, undefined=StrictUndefined,
        keep_trailing_newline=True,
    )  # fmt: skip
    return environment.get_template(TEMPLATE).render(
        title=title,
        headline=headline(summary),
        setting=f"{title}, engine {summary.engine}, {summary.clients} clients. {private}",
        curve=inline_svg(summary),
        games=games_of(summary.cycles[0]),
        cycles=_cycles(summary),
        families=None if by_fleet else _by_name({e.cycle: e.families for e in summary.cycles}, summary.families),
        transfer=_by_name({record.cycle: record.transfer for record in summary.cycles}, names) if names else None,
        lessons=_lessons(summary),
        gate=_gate(summary),
        traffic=_traffic(summary),
        total=events[-1].t if events else None,
        seconds=_seconds(summary, events),
        floors=None if by_fleet else _floors(summary),
        config=Table(("setting", "value"), sorted(summary.config.items())),
    )


def _privacy(summary: Summary) -> str:
    """Say what the server could see, and what noise promises."""
    privacy = summary.privacy
    if summary.plaintext:
        return "This run was not private: devices sent words about what happened on them."
    seen = "The server saw sums over cohorts only." if privacy.secure_sum else "The server saw every vector."
    if privacy.delta is None:
        return f"{seen} No noise was added."
    spent = summary.cycles[-1].epsilon
    return f"{seen} Noise keeps each device's part within epsilon {spent:.2f} at delta {privacy.delta:g}."


def _cycles(summary: Summary) -> Table:
    head = ("cycle", "version", "decision", wins_column(summary), "teacher", "turns per win", "tokens per win", "KL")
    rows = [
        [e.cycle, e.version, e.decision, percent(e.held_out), _rate(e.teacher)]
        + ["-" if price is None else round(price, 1) for price in (e.held_out.turns_per_win, e.held_out.tokens_per_win)]
        + [round(e.kl, 3), *_probes(e.probes)]
        for e in summary.cycles
    ]
    return Table((*head, "perplexity", "instructions"), rows)


def _probes(probes: Mapping[str, float]) -> list[str]:
    """Say what a version does outside of games, beside the base model; older runs lack some probes."""
    said = {"perplexity": "{:.2f} (base {:.2f})", "instructions": "{:.0%} (base {:.0%})"}
    return [
        form.format(probes[name], probes[f"base_{name}"]).replace("%", " %") if name in probes else "-"
        for name, form in said.items()
    ]


def _by_name(by_cycle: Mapping[int, Mapping[str, Stats]], names: Sequence[str]) -> Table:
    rows = [[cycle, *(percent(results[name]) for name in names)] for cycle, results in by_cycle.items()]
    return Table(("cycle", *names), rows)


def _lessons(summary: Summary) -> Table:
    rows = [
        (record.cycle, lesson_words(lesson), f"{lesson.weight:+.2f}", round(lesson.support))
        for record in summary.cycles
        for lesson in sorted(record.lessons, key=lambda lesson: -abs(lesson.weight))
    ]
    return Table(("cycle", "lesson", "weight", "support"), rows)


def _gate(summary: Summary) -> Table:
    head = ("cycle", "decision", "reason", "current", "teacher", "candidate")
    results = [e.gate.named().values() if e.gate else (None,) * 3 for e in summary.cycles]
    rows = zip(summary.cycles, results, strict=True)
    return Table(head, [[e.cycle, e.decision, e.reason, *map(_rate, played)] for e, played in rows])


def _traffic(summary: Summary) -> Table:
    head = ("cycle", "accepted", "refused", "up, each client", "down, each client", "adapter")
    rows = [
        [e.cycle, e.accepted, refused_words(e.refused), *map(size, (e.uplink_bytes, e.downlink_bytes, e.adapter_bytes))]
        for e in summary.cycles
    ]
    return Table(head, rows)


def _seconds(summary: Summary, events: Sequence[Event]) -> Table:
    """Say the times of the log, and of the summary where the log has none."""
    rows = [
        (e.cycle, phase, round(seconds, 1))
        for e in summary.cycles
        for phase, seconds in {**e.seconds, **seconds_by_phase(events, e.cycle)}.items()
    ]
    return Table(("cycle", "phase", "seconds"), rows)


def _floors(summary: Summary) -> Table:
    names, others = summary.families, summary.transfer
    rows = []
    for name, floor in measured_floors(summary).items():
        rates = [floor.families[n] for n in names] + [floor.transfer.get(n) for n in others]
        rows.append([name.replace("_", " "), percent(floor), *map(_rate, rates)])
    return Table(("play", "all games", *names, *others), rows)


def _rate(stats: Stats | None) -> str:
    return percent(stats) if stats else "-"
