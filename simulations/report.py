"""Everything about a run in one HTML file that needs nothing else, read with any browser."""

from __future__ import annotations

from pathlib import Path

from ..protocol.host.files import write_whole
from ..server.events import LOG, read_events
from .page.log import RunLog
from .page.render import render
from .page.view import view_of
from .summary import load_summary


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
    write_whole(path, render(view_of(load_summary(run), RunLog().add(read_events(run / LOG)))))
    return path
