"""The privacy ledger of a run: what was begun and what was spent, on disk before it happens.

One line of JSON an entry, flushed and synced. A line that a crash cut off is the last one; it was never acted on, and
is counted all the same.
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
    """Entries of one run.

    Raises
    ------
    FedoelError
        If the file cannot be read or written.
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
        """Number a new round."""
        self.rounds += 1
        self._append({"kind": BEGUN, "number": self.rounds})
        return self.rounds

    def spend(self, cycle: int, **what: Any) -> None:
        """Write one release of a cycle down."""
        self._cycles.append(cycle)
        self._append({"kind": SPENT, "cycle": cycle, **what})

    def spent(self, cycle: int | None = None) -> int:
        """Releases up to a cycle, or all of them. One that a crash cut off counts from the beginning."""
        return sum(cycle is None or made <= cycle for made in self._cycles)

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
                f"the privacy ledger {self.path} is damaged: nobody knows what was spent; start another run"
            ) from error

    def _append(self, entry: Mapping[str, Any]) -> None:
        try:
            append_line(self.path, json.dumps(entry, sort_keys=True).encode())
        except OSError as error:
            raise FedoelError(
                f"the privacy ledger {self.path} cannot be written ({error.strerror}), so nothing may be released: "
                "make room and go on with --resume"
            ) from error
