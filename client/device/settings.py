"""The settings of a device's owner: when it plays, how much of the machine it may use, and what it answers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import time
from pathlib import Path

import tomli_w

from ...protocol.config import REPLY_SECONDS
from ...protocol.errors import ConfigError
from ...protocol.fleet.trust import Trust
from ...protocol.settings import Scalar, from_table, parse_toml, read_toml, setting, settings_of, to_table

POWERS = ("any", "mains")
HOURS = re.compile(r"([01]\d|2[0-3]):([0-5]\d)-([01]\d|2[0-3]):([0-5]\d)")
# Half of the time for which a server waits: a request lies for a while until its device takes it, and an answer that
# leaves after that time has no part in the round.
LONGEST_INTERVAL = int(REPLY_SECONDS / 2)
TRUST = "trust"  # the table that a fleet makes a proposal for
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
    answer_every: int = setting(
        0,
        "Holds what it answers to a request to play back until a multiple of so many seconds after the request came, "
        "which hides how long it played; 0 for at once.",
        low=0,
        high=LONGEST_INTERVAL,
    )


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
class DeviceSettings:
    """Everything in `device.toml`."""

    play: Play = field(default_factory=Play)
    limits: Limits = field(default_factory=Limits)
    store: Keep = field(default_factory=Keep)
    model: Model = field(default_factory=Model)
    trust: Trust = field(default_factory=Trust)


def settings_file(settings: DeviceSettings) -> str:
    """Write `device.toml`, with a comment behind every setting for the owner who edits it.

    `[trust]` is left out as long as it says nothing: what the fleet proposes is written there (`with_proposal`).
    """
    text = HEAD
    for table, values in to_table(settings).items():
        if table != TRUST or settings.trust != Trust():
            text += f"\n[{table}]\n{_lines(table, values)}"
    return text


def with_proposal(text: str, proposal: Mapping[str, Scalar]) -> str:
    """Return the text of `device.toml` with what a fleet proposes for `[trust]` added to it.

    What stands there already is the owner's, and stays as it is.

    Raises
    ------
    ConfigError
        If the text is not TOML, or its settings of `[trust]` do not stand below that header.
    """
    owners = parse_toml(text).get(TRUST, {})
    proposed = to_table(from_table(Trust, proposal))
    lines = _lines(TRUST, {name: proposed[name] for name in proposal if name not in owners})
    if not lines:
        return text
    header = re.search(rf"^[ \t]*\[[ \t]*{TRUST}[ \t]*\][^\n]*\n", text, re.MULTILINE)
    if header:
        return text[: header.end()] + lines + text[header.end() :]
    if owners:
        raise ConfigError(
            f"device.toml: write [{TRUST}] as a table of its own, so that the fleet's proposal can be added"
        )
    return f"{text.rstrip()}\n\n[{TRUST}]\n{lines}"


def _lines(table: str, values: Mapping[str, Scalar]) -> str:
    declared = settings_of(DeviceSettings)
    return "".join(
        f"{tomli_w.dumps({name: value}).strip()}  # {declared[f'{table}.{name}'].help}\n"
        for name, value in values.items()
    )


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
