"""Everything about a run in one HTML file that needs nothing else, read with any browser."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from ..protocol.host.files import write_whole
from ..server.events import LOG, read_events
from ..server.run_folder import STORED
from ..server.run_location import locate
from ..server.version_list import VersionList
from .page.behaviour import KEPT, kept_of
from .page.log import RunLog
from .page.render import render
from .page.view import attempt, view_of
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
    path, summary = run / "report.html", load_summary(run)
    log, problems = RunLog().add(read_events(run / LOG)), list[str]()
    has_versions = (run / STORED).exists()  # stored results have none
    chosen = (
        attempt("the list of versions", lambda: VersionList(locate(run)).chosen, problems) if has_versions else None
    )
    kept = attempt(KEPT, lambda: kept_of(run, summary, chosen.name if chosen else ""), problems)
    write_whole(path, render(replace(view_of(summary, log, kept=kept, chosen=chosen), problems=problems)))
    return path
