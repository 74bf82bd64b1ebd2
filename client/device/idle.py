"""Whether a device plays now: the conditions of its owner, checked before anything is loaded.

A condition on something that the system does not report, such as the source of power, counts as met.
"""

from __future__ import annotations

import json
import os
import time
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from pathlib import Path

from ...protocol.errors import NotNow
from ...protocol.host.files import replace_file
from .settings import Play, hours_of

SUPPLIES = Path("/sys/class/power_supply")
MEMORY = Path("/proc/meminfo")
SET_BACK = 2  # days by which a clock may be behind the day of the last count: set back, or carried to another time zone


@dataclass(frozen=True, slots=True)
class Now:
    """The state of a machine at one moment.

    Parameters
    ----------
    clock
        Local time, without a zone: that of the system.
    load
        Load average of the last minute; None if the system does not report it.
    on_battery
        Whether the machine runs on battery; None if the system does not report it.
    free
        Megabytes of available memory; None if the system does not report them.
    """

    clock: datetime
    load: float | None
    on_battery: bool | None
    free: float | None


def look(supplies: Path = SUPPLIES, memory: Path = MEMORY) -> Now:
    """Read the machine's state from the system."""
    load = None
    with suppress(OSError, AttributeError):  # Windows has no load average
        load = os.getloadavg()[0]
    with suppress(AttributeError):  # Windows
        time.tzset()  # the process may have begun in another time zone
    return Now(datetime.now(), load, on_battery(supplies), free_memory(memory))


def on_battery(supplies: Path = SUPPLIES) -> bool | None:
    """Read from Linux whether a machine runs on battery: no mains supply is online, and a battery is discharging.

    Returns
    -------
    bool or None
        None if there is neither a battery nor a mains supply that is online.
    """
    types = {supply: _read_text(supply / "type") for supply in supplies.glob("*")} if supplies.is_dir() else {}
    mains_online = [_read_text(supply / "online") for supply, name in types.items() if name in ("Mains", "USB")]
    battery_status = [
        _read_text(supply / "status")
        for supply, name in types.items()
        if name == "Battery" and _read_text(supply / "scope") != "Device"  # a battery of a mouse or a keyboard
    ]
    if "1" in mains_online:
        return False
    if battery_status:
        return "Discharging" in battery_status
    return None


def free_memory(memory: Path = MEMORY) -> float | None:
    """Read from Linux how many megabytes of memory are available without swapping; None if it cannot be read."""
    with suppress(OSError, ValueError, IndexError):
        for line in memory.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return None


def why_not(play: Play, memory: int, now: Now, played: int, games: int) -> str:
    """Return the reason why a device does not play now; empty if it plays.

    Parameters
    ----------
    play
        The owner's conditions.
    memory
        Megabytes that a request may take and that must be free; 0 for no limit.
    now
        The state of the machine.
    played
        Games that were played today.
    games
        Games of the request.
    """
    if play.hours and not is_in(play.hours, now.clock):
        return f"it is {now.clock:%H:%M}, and it plays {play.hours}"
    if play.max_load and now.load is not None and now.load > play.max_load:
        return f"the load is {now.load:.2f}, and it plays below {play.max_load:g}"
    if play.power == "mains" and now.on_battery:
        return "it runs on battery"
    if memory and now.free is not None and now.free < memory:
        return f"{now.free:.0f} MB of memory are free, and a request may take {memory}"
    if play.games_a_day and played + games > play.games_a_day:
        return f"{played} games were played today, and {games} more are above {play.games_a_day}"
    return ""


def is_in(hours: str, moment: datetime) -> bool:
    """Whether a moment is in a daily window of local time, such as ``22:00-07:00``.

    Both ends are instants, so that a change of the clocks neither opens a window twice nor swallows it: of an hour that
    comes twice the first one counts, and a window that lies in the hour that is left out opens when that has passed.

    Raises
    ------
    ConfigError
        If the text is no window.
    """
    window = hours_of(hours)
    if window is None:
        return True
    start, end = window
    for day in (moment.date() - timedelta(days=1), moment.date()):  # the window of yesterday may span midnight
        opens = datetime.combine(day, start)
        closes = datetime.combine(day if start < end else day + timedelta(days=1), end)
        begin, until = opens.timestamp(), closes.timestamp()
        if until <= begin:
            until = begin + (closes - opens).total_seconds()
        if begin <= moment.timestamp() < until:
            return True
    return False


def games_today(path: Path, today: str) -> int:
    """Return how many games count on a day; a missing or damaged file counts as none.

    Where the clock was set back, those of the day on which the last games were counted still count: a quota must not
    begin anew.
    """
    return _counted(path, today)[1]


def _counted(path: Path, today: str) -> tuple[str, int]:
    """Return the day of the count, which may be later than a day, and the count."""
    with suppress(OSError, ValueError, TypeError, AttributeError, KeyError):
        count = json.loads(path.read_bytes())
        if timedelta() <= date.fromisoformat(count["day"]) - date.fromisoformat(today) <= timedelta(days=SET_BACK):
            return str(count["day"]), int(count["games"])
    return today, 0


def count_games(path: Path, today: str, games: int) -> None:
    """Add games to today's count. They are counted before they are played, so that a crash does not refund them.

    Raises
    ------
    NotNow
        If the count cannot be written.
    """
    try:
        day, counted = _counted(path, today)
        replace_file(path, json.dumps({"day": day, "games": counted + games}))
    except OSError as error:
        raise NotNow(f"games cannot be counted in {path}: {error.strerror}") from error


def _read_text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
