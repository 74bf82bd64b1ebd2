"""The privacy ledger of a run: an append-only log of rounds and releases, written before they happen.

Each entry is one line of JSON, flushed and synced to disk. A crash can truncate the last line only. A truncated entry
was not acted on, but counts as a release, so that the accounting stays an upper bound.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..protocol.errors import FedoelError
from ..protocol.host.files import append_line

BEGUN, SPENT, OPENED = "round", "spend", "ledger"


class Ledger:
    """The ledger in a file, which is created if it does not exist.

    `run` is the run's random name, `secret` the seed of cohort sampling that devices do not know, and `rounds` the
    number of rounds begun.

    Raises
    ------
    FedoelError
        If the file cannot be read or written, or is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        entries = self._read()
        if not entries:
            entries = [{"kind": OPENED, "run": secrets.token_hex(16), "secret": secrets.randbits(64)}]
            self._append(entries[0])
        self.run, self.secret = str(entries[0].get("run", "")), int(entries[0].get("secret", 0))
        self.rounds: int = sum(entry["kind"] == BEGUN for entry in entries)
        self._cycles = [int(entry.get("cycle", 0)) for entry in entries if entry["kind"] == SPENT]

    def begin(self) -> int:
        """Record a new round, and return its number."""
        self.rounds += 1
        self._append({"kind": BEGUN, "number": self.rounds})
        return self.rounds

    def spend(self, cycle: int, **details: Any) -> None:
        """Record one release of a cycle."""
        self._cycles.append(cycle)
        self._append({"kind": SPENT, "cycle": cycle, **details})

    def spent(self, cycle: int | None = None) -> int:
        """Return the number of releases up to a cycle, or of all; a truncated entry counts for every cycle."""
        return sum(cycle is None or released_in <= cycle for released_in in self._cycles)

    def _read(self) -> list[Mapping[str, Any]]:
        if not self.path.exists():
            return []
        try:
            lines = self.path.read_bytes().splitlines()
        except OSError as error:
            raise FedoelError(f"the privacy ledger {self.path} cannot be read: {error.strerror}") from error
        return [self._entry(line, last=number == len(lines)) for number, line in enumerate(lines, 1)]

    def _entry(self, line: bytes, last: bool) -> Mapping[str, Any]:
        try:
            entry: Mapping[str, Any] = json.loads(line)
            return {"kind": entry["kind"], **entry}
        except (ValueError, KeyError, TypeError) as error:
            if last:
                return {"kind": SPENT}
            raise FedoelError(
                f"the privacy ledger {self.path} is damaged, so that the budget spent is unknown: start another run"
            ) from error

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            append_line(self.path, json.dumps(entry, sort_keys=True).encode())
        except OSError as error:
            raise FedoelError(
                f"the privacy ledger {self.path} cannot be written ({error.strerror}), so nothing may be released: "
                "make room and go on with --resume"
            ) from error
