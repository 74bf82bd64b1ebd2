"""The settings of a device's owner: when it plays, how many games, and how much of the machine it may use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

from ...protocol.config import from_table, read_toml
from ...protocol.errors import ConfigError

POWERS = ("any", "mains")
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
TEMPLATE = """\
# What this device does for its fleet. It is read for every request: changes need no restart, but for [limits].

[play]
hours = "{hours}"  # local time in which it plays, e.g. "22:00-07:00"; empty for any
max-load = 0.0  # it plays only below this load average of the last minute; 0 for any
power = "any"  # "mains": never on battery, where the system tells
games-a-day = 0  # 0 for as many as it is asked for

[limits]
threads = 1  # of numerical libraries
memory = 0  # megabytes that one request may take; 0 for no limit

[store]
keep = true  # the encrypted log of what it played
days = 90
megabytes = 100

[model]
file = ""  # GGUF file or folder of the base model; empty for the packaged one
"""


@dataclass(frozen=True, slots=True)
class Play:
    """The conditions under which a device plays: see `fedoel.client.device.idle`."""

    hours: str = ""
    max_load: float = 0.0
    power: str = "any"
    games_a_day: int = 0


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the machine a request may use: threads, and megabytes of memory (0 for no limit)."""

    threads: int = 1
    memory: int = 0


@dataclass(frozen=True, slots=True)
class Keep:
    """Whether there is an encrypted store, for how many days it keeps a row, and its largest size in megabytes."""

    keep: bool = True
    days: float = 90.0
    megabytes: float = 100.0


@dataclass(frozen=True, slots=True)
class Model:
    """The base model's file or folder; empty for the packaged one."""

    file: str = ""


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Everything in `device.toml`."""

    play: Play = field(default_factory=Play)
    limits: Limits = field(default_factory=Limits)
    store: Keep = field(default_factory=Keep)
    model: Model = field(default_factory=Model)


def read_settings(path: Path) -> DeviceSettings:
    """Read a device's settings.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a setting is unknown or has an impossible value.
    """
    if not path.exists():
        raise ConfigError(f"{path} is missing: run `fedoel device join` first")
    values = read_toml(path)
    try:
        settings = from_table(DeviceSettings, values)
        hours_of(settings.play.hours)
        _check(settings)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error
    return settings


def hours_of(text: str) -> tuple[time, time] | None:
    """Read a window such as ``22:00-07:00`` as its start and end; None for an empty text.

    Raises
    ------
    ConfigError
        If the text is no such window, or the window is empty.
    """
    if not text:
        return None
    match = HOURS.fullmatch(text)
    if not match or match[1] + match[2] == match[3] + match[4]:
        raise ConfigError(f'hours must be like "22:00-07:00", or empty for any time, not {text!r}')
    return time(int(match[1]), int(match[2])), time(int(match[3]), int(match[4]))


def _check(settings: DeviceSettings) -> None:
    numbers = {
        "play.max-load": settings.play.max_load, "play.games-a-day": settings.play.games_a_day,
        "limits.memory": settings.limits.memory, "store.days": settings.store.days,
        "store.megabytes": settings.store.megabytes,
    }  # fmt: skip
    for name, number in numbers.items():
        if not 0 <= number < 1e9:
            raise ConfigError(f"{name} must be 0 or more, not {number!r}")
    if not 1 <= settings.limits.threads <= 1024:
        raise ConfigError(f"limits.threads must be 1 or more, not {settings.limits.threads!r}")
    if settings.play.power not in POWERS:
        raise ConfigError(f"play.power must be one of {', '.join(POWERS)}, not {settings.play.power!r}")
