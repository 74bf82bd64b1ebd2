"""The fleet's kill switch: `fedoel server stop` and `fedoel server go-on`."""

from __future__ import annotations

from collections.abc import Iterator
from shlex import quote

from ...protocol.errors import ConfigError
from ...protocol.fleet.notice import Notice
from ...protocol.host.lock import owner
from ..notice import acknowledged, newest_notice, publish_notice
from .folder import ServerFolder, read_settings
from .roll import devices, read_roll


def stop(folder: ServerFolder, reason: str = "") -> int:
    """Sign the notice that stops every device, and say how it gets to them.

    Raises
    ------
    ConfigError
        If it is not a server's folder, or the fleet's key is missing.
    VersionError
        If the reason is too long, or not one line.
    """
    read_settings(folder)
    print(f"signed {publish_notice(folder.fleet, True, reason)}")
    if running := owner(folder.lock):
        print(f"the run of {running} carries it to the devices now, and waits")
    else:
        print(f"no server runs: fedoel server start {quote(str(folder.path))} carries it to the devices, and waits")
    print("devices that are not connected are told when they connect; the count: fedoel server status")
    print(f"only a newer notice lifts it: fedoel server go-on {quote(str(folder.path))}")
    return 0


def go_on(folder: ServerFolder) -> int:
    """Sign the notice that lifts a stop; the run that waits goes on.

    Raises
    ------
    ConfigError
        If the fleet is not stopped, it is not a server's folder, or the fleet's key is missing.
    """
    read_settings(folder)
    before = newest_notice(folder.fleet)
    if before is None or not before.stop:
        raise ConfigError("the fleet is not stopped: there is nothing to lift")
    print(f"signed {publish_notice(folder.fleet, False)}")
    print("devices take it with the next message of a run")
    return 0


def told(folder: ServerFolder) -> Iterator[str]:
    """Yield a line about the newest notice, if there is one."""
    if notice := newest_notice(folder.fleet):
        yield f"notice: {said(folder, notice)}"


def said(folder: ServerFolder, notice: Notice) -> str:
    """Say what a notice comes to."""
    if not notice.stop:
        return f"{notice}; devices take it with the next message"
    of = devices(len(read_roll(folder.roll).active))
    count = acknowledged(folder.fleet, notice.number)
    return f"THE FLEET IS STOPPED: {notice}; {count} of {of} have acknowledged it; fedoel server go-on lifts it"
