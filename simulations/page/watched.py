"""The run in a folder, as it is now. Nothing is written and no lock is taken: the run does not notice."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from functools import partial
from pathlib import Path

from ...protocol.errors import ConfigError
from ...protocol.records.summary import Summary
from ...server import journal, summary
from ...server.events import LOG
from ...server.operate.folder import SETTINGS, ServerFolder
from ...server.operate.roll import read_roll
from ...server.run_folder import STORED
from ...server.run_location import locate
from ...server.version_list import VersionList
from ..summary import load_summary
from .behaviour import KEPT, kept_of
from .log import RunLog
from .versions import versions_of
from .view import View, attempt, state_words, view_of, waiting_view

FILES = (STORED, summary.NAME, LOG, journal.NAME)  # whose change changes the page


class Watched:
    """The folder of a run, or of a fleet's server, and what was read of its log.

    Raises
    ------
    ConfigError
        If it is neither.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder.absolute()
        self._log = RunLog()
        self._read: tuple[object, ...] = ()
        self._known, self._problems = waiting_view(self.folder.name, self._log), list[str]()
        if not any((self.folder / name).exists() for name in (SETTINGS, STORED, summary.NAME)):
            raise ConfigError(
                f"{self.folder} is neither the folder of a run nor that of a server: give the folder that `fedoel "
                "simulate` or `fedoel server` has made"
            )

    @property
    def run(self) -> Path:
        """Folder of the run, which may not exist yet."""
        is_server = (self.folder / SETTINGS).exists()
        return ServerFolder(self.folder).run if is_server else self.folder

    def stamp(self) -> str:
        """Return a text that is another one after every change of the run's files."""
        return "-".join(map(self._mark, FILES))

    def view(self) -> View:
        """Return what the page says now. Records are read again when they have changed, and not for every event."""
        problems = list[str]()
        self._log = attempt(LOG, lambda: self._log.read(self.run / LOG), problems) or self._log
        problems += [self._log.problem] if self._log.problem else []
        progress = self._log.progress
        records = [self._mark(name) for name in FILES if name != LOG]
        read = (*records, self._log.ended, progress.title, progress.finished)
        if read != self._read:
            self._read, self._problems = read, []
            known = attempt(summary.NAME, self._summary, self._problems)
            shown = attempt(summary.NAME, partial(self._view, known), self._problems) if known else None
            self._known = shown or waiting_view(self.folder.name, self._log)
        return replace(
            self._known, state=self._state(), finished=bool(progress.finished), problems=[*problems, *self._problems]
        )

    def _mark(self, name: str) -> str:
        """Return a text that is another one after every change of a file; empty if there is none."""
        try:
            stat = (self.run / name).stat()
        except OSError:
            return ""
        return f"{stat.st_mtime_ns:x}.{stat.st_size:x}"

    def _summary(self) -> Summary | None:
        if not (self.run / summary.NAME).exists():
            return None
        return load_summary(self.run, ended=False)

    def _view(self, known: Summary) -> View:
        problems = self._problems
        listed, versions = None, None
        if (self.run / STORED).exists():  # stored results have no versions, but a summary alone
            listed = attempt("the list of versions", lambda: VersionList(locate(self.folder)), problems)
        if listed is not None:
            versions = attempt("the list of versions", partial(versions_of, self.folder, listed), problems)
        current = listed.current if versions and listed else ""
        kept = attempt(KEPT, partial(kept_of, self.run, known, current), problems)
        chosen = attempt("the list of versions", lambda: listed.chosen, problems) if versions and listed else None
        view = view_of(known, self._log, versions, kept, chosen)
        if not (self.folder / SETTINGS).exists():
            return view
        roll = attempt("the list of devices", lambda: read_roll(ServerFolder(self.folder).roll), problems)
        enrolled = (
            f" {len(roll.active)} devices enrolled, {len(roll.devices) - len(roll.active)} revoked." if roll else ""
        )
        return replace(view, setting=view.setting + enrolled)

    def _state(self) -> str:
        """Say where the run stands, and when a run that goes on was last heard of: one that was killed says nothing."""
        log, state = self.run / LOG, state_words(self._log.progress)
        if self._log.progress.finished or not log.exists():
            return state
        heard = datetime.fromtimestamp(log.stat().st_mtime).astimezone()
        return f"{state or 'started'}; last event {heard:%Y-%m-%d %H:%M:%S %Z}"
