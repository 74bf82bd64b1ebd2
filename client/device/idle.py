"""Whether a device plays now: the conditions of its owner, checked before anything is loaded.

A condition that the system cannot tell, such as the source of power, holds.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, time
from pathlib import Path

from ...protocol.errors import NotNow
from ...protocol.host.files import replace_file
from .settings import Play, hours_of

SUPPLIES = Path("/sys/class/power_supply")
MEMORY = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Now:
    """How a machine is at a moment.

    Parameters
    ----------
    clock
        Local time.
    load
        Load average of the last minute; None where the system does not tell.
    on_battery
        Whether it runs on battery; None where the system does not tell.
    free
        Megabytes of memory that are available; None where the system does not tell.
    """

    clock: datetime
    load: float | None
    on_battery: bool | None
    free: float | None


def look(supplies: Path = SUPPLIES, memory: Path = MEMORY) -> Now:
    """Ask the system how it is."""
    load = None
    with suppress(OSError, AttributeError):  # there is none on Windows
        load = os.getloadavg()[0]
    return Now(datetime.now(), load, on_battery(supplies), free_memory(memory))


def on_battery(supplies: Path = SUPPLIES) -> bool | None:
    """Whether a machine runs on battery, as Linux tells it: no supply is online, and a battery is discharged."""
    kinds = {supply: _word(supply / "type") for supply in supplies.glob("*")} if supplies.is_dir() else {}
    mains = [_word(supply / "online") for supply, kind in kinds.items() if kind in ("Mains", "USB")]
    batteries = [
        _word(supply / "status")
        for supply, kind in kinds.items()
        if kind == "Battery" and _word(supply / "scope") != "Device"  # those of mice and keyboards say nothing
    ]
    if "1" in mains:
        return False
    if batteries:
        return "Discharging" in batteries
    return None


def free_memory(memory: Path = MEMORY) -> float | None:
    """Return the megabytes that are available without swapping, as Linux tells it."""
    with suppress(OSError, ValueError, IndexError):
        for line in memory.read_text(encoding="ascii").splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) / 1024
    return None


def why_not(play: Play, memory: int, now: Now, played: int, games: int) -> str:
    """Say why a device does not play now; empty if it does.

    Parameters
    ----------
    play
        The conditions.
    memory
        Megabytes that a request may take, which must be free; 0 for no limit.
    played
        Games that were played today.
    games
        Games that are asked for.
    """
    window = hours_of(play.hours)
    if window and not _within(now.clock, *window):
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


def games_today(path: Path, today: str) -> int:
    """Return how many games were played on a day; what cannot be read counts as none."""
    with suppress(OSError, ValueError, TypeError, AttributeError):
        counted = json.loads(path.read_bytes())
        return int(counted["games"]) if counted.get("day") == today else 0
    return 0


def count_games(path: Path, today: str, games: int) -> None:
    """Count games before they are played, so that a crash does not give them back.

    Raises
    ------
    NotNow
        If that cannot be written down.
    """
    try:
        replace_file(path, json.dumps({"day": today, "games": games_today(path, today) + games}))
    except OSError as error:
        raise NotNow(f"games cannot be counted in {path}: {error.strerror}") from error


def _within(now: datetime, start: time, end: time) -> bool:
    """Whether a moment is between two times of day; the window may go over midnight."""
    moment = now.time()
    if start < end:
        return start <= moment < end
    return moment >= start or moment < end


def _word(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError):
        return ""
