"""The settings of a device's owner: when it plays, how many games, and how much of the machine it may use."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

import tomli_w

from ...protocol.errors import ConfigError
from ...protocol.secagg.graph import COLLUDING
from ...protocol.settings import from_table, read_toml, setting, settings_of, to_table

POWERS = ("any", "mains")
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
HEAD = "# Settings of this device. It reads them for every request: only changes of [limits] need a restart.\n"


@dataclass(frozen=True, slots=True)
class Play:
    """The conditions under which a device plays: see `fedoel.client.device.idle`."""

    hours: str = setting("", 'Local time in which it plays, e.g. "22:00-07:00"; empty for any.')
    max_load: float = setting(
        0.0, "It plays only below this load average of the last minute; 0 for any.", low=0, high=1e9
    )
    power: str = setting("any", 'With "mains" it never plays on battery, where the system tells.', choices=POWERS)
    games_a_day: int = setting(0, "Most games of a day; 0 for as many as it is asked for.", low=0, high=10**9)


@dataclass(frozen=True, slots=True)
class Limits:
    """How much of the machine a device takes."""

    threads: int = setting(1, "Threads of numerical libraries.", low=1, high=1024)
    memory: int = setting(0, "Megabytes that one request may take; 0 for no limit.", low=0, high=10**9)


@dataclass(frozen=True, slots=True)
class Keep:
    """Whether there is an encrypted store, for how many days it keeps a row, and its largest size in megabytes."""

    keep: bool = setting(True, "Whether it keeps an encrypted log of what it played.")
    days: float = setting(90.0, "Days for which it keeps a game.", low=0, high=1e9)
    megabytes: float = setting(100.0, "Largest size of the log.", low=0, high=1e9)


@dataclass(frozen=True, slots=True)
class Model:
    """The base model's file or folder; empty for the packaged one."""

    file: str = setting("", "GGUF file or folder of the base model; empty for the packaged one.")


@dataclass(frozen=True, slots=True)
class Trust:
    """What this device assumes about the fleet; the server has no say in it."""

    colluding: float = setting(
        COLLUDING, "Share of a cohort that may collude with the server in a secure sum.", low=0, high=0.9
    )


@dataclass(frozen=True, slots=True)
class DeviceSettings:
    """Everything in `device.toml`."""

    play: Play = field(default_factory=Play)
    limits: Limits = field(default_factory=Limits)
    store: Keep = field(default_factory=Keep)
    model: Model = field(default_factory=Model)
    trust: Trust = field(default_factory=Trust)


def settings_file(settings: DeviceSettings) -> str:
    """Write `device.toml`, with a comment behind every setting for the owner who edits it."""
    declared, text = settings_of(DeviceSettings), HEAD
    for table, values in to_table(settings).items():
        text += f"\n[{table}]\n"
        for name, value in values.items():
            text += f"{tomli_w.dumps({name: value}).strip()}  # {declared[f'{table}.{name}'].help}\n"
    return text


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
