"""The fleet's transparency log, shown and checked: `fedoel server log`."""

from __future__ import annotations

from ...protocol.errors import ConfigError
from ...protocol.fleet.log import head_from_text
from ...protocol.fleet.membership import read_fleet_key
from ..log import NAME as LOG
from ..log import LogCheck, check_log
from .folder import ServerFolder, read_settings


def show(folder: ServerFolder) -> int:
    """Print the log's entries, oldest first, and its head."""
    check = _checked(folder)
    for logged in check.entries:
        values = " ".join(f"{name}={value}" for name, value in logged.entry.values.items() if value != "")
        print(f"{logged.entry.number:>6}  {logged.entry.kind:<8} {values}")
    print(f"head {check.head}")
    return _said(check)


def verify(folder: ServerFolder, head: str = "") -> int:
    """Check the log's chain and signatures; return 0 if everything holds, else 1.

    Parameters
    ----------
    head
        A head that the log must have, as a device has shown it.

    Raises
    ------
    ConfigError
        If it is no head.
    """
    check = _checked(folder, head)
    print(f"checked  {len(check.entries)} entries, each signed and chained to the one before")
    if head and not check.problems:
        print(f"checked  the log has the head {head}")
    print(f"head     {check.head}")
    return _said(check)


def _checked(folder: ServerFolder, head: str = "") -> LogCheck:
    read_settings(folder)  # which refuses another folder
    try:
        public = read_fleet_key(folder.fleet)
    except (OSError, ValueError) as error:
        raise ConfigError(f"{folder.fleet} has no key of the fleet ({error}): put back a copy") from error
    return check_log(folder.fleet / LOG, public, head_from_text(head) if head else None)


def _said(check: LogCheck) -> int:
    if check.torn:
        print(f"note     {check.torn} bytes behind the last line were torn by a crash, and are no entry")
    for problem in check.problems:
        print(f"WRONG    {LOG}, {problem}")
    return 1 if check.problems else 0
