"""Everything about a run in one HTML file that needs nothing else, read with any browser."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..protocol.errors import ConfigError
from ..protocol.host.files import write_whole
from ..server.events import Event, read_events, seconds_by_phase
from .figures import inline_svg
from .report_page import PAGE
from .summary import (
    FLOORS,
    Summary,
    families,
    headline,
    lesson_words,
    load_summary,
    percent,
    refused_words,
    size,
    transfer,
)

Row = Sequence[object]


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
    summary = load_summary(run)
    events = read_events(run / "events.jsonl")
    try:
        page = _page(summary, events)
    except (KeyError, TypeError, ValueError) as error:
        raise ConfigError(
            f"summary.json or events.jsonl in {run} is damaged ({type(error).__name__}: {error}); "
            "continue the run with: fedoel simulate ... --resume"
        ) from error
    path = run / "report.html"
    write_whole(path, page.encode())
    return path


def _page(summary: Summary, events: Sequence[Event]) -> str:
    title = f"{summary['scenario']}, seed {summary['seed']}"
    private = _privacy(summary)
    parts = {
        "title": escape(title),
        "headline": escape(headline(summary)),
        "setting": escape(f"{title}, engine {summary['engine']}, {_clients(summary)}. {private}"),
        "curve": inline_svg(summary),
        "cycles": _cycles(summary),
        "families": _families(summary),
        "lessons": _lessons(summary),
        "gate": _gate(summary),
        "traffic": _traffic(summary),
        "seconds": _seconds(summary, events),
        "floors": _floors(summary),
        "config": html_table(("setting", "value"), sorted(summary["config"].items())),
    }
    head, *pieces = PAGE.split("{{")
    # One pass over the page, so that nothing in a value is taken for a place.
    return head + "".join(parts[name] + rest for name, rest in (piece.split("}}", 1) for piece in pieces))


def _privacy(summary: Summary) -> str:
    """Say what the server could see, and what noise promises."""
    privacy = summary.get("privacy", {})
    if summary.get("plaintext"):
        return "This run was not private: devices sent words about what happened on them."
    seen = "The server saw sums over cohorts only." if privacy.get("secure_sum") else "The server saw every vector."
    if not summary["private"]:
        return f"{seen} No noise was added."
    spent = summary["cycles"][-1].get("epsilon", 0.0)
    return f"{seen} Noise keeps each device's part within epsilon {spent:.2f} at delta {privacy['delta']:g}."


def html_table(head: Sequence[str], rows: Iterable[Row]) -> str:
    """Return an HTML table; every cell is escaped, and a number is set to the right."""
    top = "".join(f"<th scope=col>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    return f"<div class=scroll><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table></div>"


def _cell(value: object) -> str:
    number = isinstance(value, int | float) and not isinstance(value, bool)
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    return f"<td{' class=number' if number else ''}>{escape(text)}</td>"


def _cycles(summary: Summary) -> str:
    head = ("cycle", "version", "decision", "held-out wins", "teacher", "turns per win", "tokens per win", "KL")
    rows = [[*_what(e), *_efficiency(e["held_out"]), round(e["kl"], 3)] for e in summary["cycles"]]
    probed = ([*row, *_probes(e)] for row, e in zip(rows, summary["cycles"], strict=True))
    return html_table((*head, "perplexity", "instructions"), probed)


def _probes(entry: Mapping[str, Any]) -> list[str]:
    """Say what a version does outside of games, beside the base model; older runs did not ask all of it."""
    probes = entry.get("probes") or {}
    said = {"perplexity": "{:.2f} (base {:.2f})", "instructions": "{:.0%} (base {:.0%})"}
    return [
        form.format(probes[name], probes[f"base_{name}"]).replace("%", " %") if name in probes else "-"
        for name, form in said.items()
    ]


def _what(entry: Mapping[str, Any]) -> list[object]:
    return [entry["cycle"], entry["version"], entry["decision"], percent(entry["held_out"]), _rate(entry["teacher"])]


def _efficiency(stats: Mapping[str, Any]) -> list[object]:
    return ["-" if stats[key] is None else round(stats[key], 1) for key in ("turns_per_win", "tokens_per_win")]


def _families(summary: Summary) -> str:
    tables = [_by_name(summary["cycles"], "families", families(summary))]
    if names := transfer(summary):
        tables += ["<p class=note>Games that nobody learned from:</p>", _by_name(summary["cycles"], "transfer", names)]
    return "".join(tables)


def _by_name(entries: Sequence[Mapping[str, Any]], part: str, names: Sequence[str]) -> str:
    return html_table(("cycle", *names), ([e["cycle"], *(percent(e[part][n]) for n in names)] for e in entries))


def _lessons(summary: Summary) -> str:
    rows = [
        (e["cycle"], lesson_words(lesson), f"{lesson['weight']:+.2f}", round(lesson["support"]))
        for e in summary["cycles"]
        for lesson in sorted(e["lessons"], key=lambda lesson: -abs(lesson["weight"]))
    ]
    return html_table(("cycle", "lesson", "weight", "support"), rows) if rows else "<p>No lessons were learned.</p>"


def _gate(summary: Summary) -> str:
    head = ("cycle", "decision", "reason", "current", "teacher", "candidate")
    sides = ("current", "teacher", "candidate")
    return html_table(
        head,
        (
            [e["cycle"], e["decision"], e["reason"], *(_rate((e["gate"] or {}).get(side)) for side in sides)]
            for e in summary["cycles"]
        ),
    )


def _traffic(summary: Summary) -> str:
    head = ("cycle", "accepted", "refused", "up, each client", "down, each client", "adapter")
    return html_table(
        head,
        (
            [e["cycle"], e["accepted"], refused_words(e["refused"])]
            + [size(e[key]) for key in ("uplink_bytes", "downlink_bytes", "adapter_bytes")]
            for e in summary["cycles"]
        ),
    )


def _seconds(summary: Summary, events: Sequence[Event]) -> str:
    """Say the times of the log, and of the summary where the log has none."""
    rows = [
        (e["cycle"], phase, round(float(seconds), 1))
        for e in summary["cycles"]
        for phase, seconds in {**e["seconds"], **seconds_by_phase(events, e["cycle"])}.items()
    ]
    total = f"<p>{events[-1]['t']:.0f} seconds in all.</p>" if events else ""
    return total + html_table(("cycle", "phase", "seconds"), rows)


def _floors(summary: Summary) -> str:
    names, others = families(summary), transfer(summary)
    rows = []
    for name in FLOORS:
        floor = summary["floors"][name]
        rates = [floor["families"].get(n) for n in names] + [floor.get("transfer", {}).get(n) for n in others]
        rows.append([name.replace("_", " "), percent(floor), *map(_rate, rates)])
    return html_table(("play", "all games", *names, *others), rows)


def _rate(stats: Mapping[str, Any] | None) -> str:
    return percent(stats) if stats else "-"


def _clients(summary: Summary) -> str:
    return f"{summary['config'].get('clients', 'unknown number of')} clients"
