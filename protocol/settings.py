"""Declared settings: one declaration gives type, default, allowed values and help.

A table of settings is a frozen dataclass whose fields are declared with `setting`, or are tables themselves. Reading,
checks, error messages and documentation are derived from the declarations. ``per_client`` is written ``per-client``,
and ``per_client`` of the table ``games`` is ``games.per-client``.
"""

from __future__ import annotations

import json
import math
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeVar

from .errors import ConfigError
from .release import FIRST, Release

Scalar = int | float | str | bool
Value = TypeVar("Value", int, float, str, bool)
Table = TypeVar("Table")
LARGEST = 10**12  # of all whole numbers: what they count has to fit into memory and into arithmetic with floats
SHOWN = 60  # characters of a value in an error
TYPES: Mapping[type[Scalar], str] = {int: "an integer", float: "a number", str: "text", bool: "true or false"}


@dataclass(frozen=True, slots=True)
class Setting:
    """One setting; numbers are finite.

    Parameters
    ----------
    default
        Value if none is given; its type is the type of the setting.
    help
        One sentence for the documentation.
    low, high
        Smallest and largest allowed number; `high` is given beside `low` or `above` only.
    above
        Bound that a number has to exceed, instead of `low`.
    choices
        Allowed values; empty for any.
    since
        The first release that has it.
    printable
        Whether text is shown as it is, and may hold no control characters and nothing that turns the writing direction.
    """

    default: Scalar
    help: str = ""
    low: float = -math.inf
    high: float = math.inf
    above: float = -math.inf
    choices: tuple[Scalar, ...] = ()
    since: Release = FIRST
    printable: bool = False

    @property
    def allowed(self) -> str:
        """Allowed values in words, e.g. ``an integer between 1 and 9``."""
        if self.choices:
            return f"one of {', '.join(map(str, self.choices))}"
        bounds = f" above {self.above:.15g}" if self.above > -math.inf else ""
        if bounds and self.high < math.inf:
            bounds += f" and at most {self.high:.15g}"
        elif self.high < math.inf:
            bounds = f" between {self.low:.15g} and {self.high:.15g}"
        elif self.low > -math.inf:
            bounds = f" of at least {self.low:.15g}"
        return TYPES[type(self.default)] + bounds

    def check(self, name: str, value: Scalar) -> Scalar:
        """Return an allowed value; integers become floats where the setting is one.

        Raises
        ------
        ConfigError
            If the value is of another type, or not allowed; or text that no file and no path may hold.
        """
        if type(value) is int and abs(value) > LARGEST:
            limit = "" if self.high < math.inf else f" and at most {LARGEST}"
            raise ConfigError(f"{name} must be {self.allowed}{limit}, not {shown(value)}")
        if type(self.default) is float and type(value) is int:
            value = float(value)
        if type(value) is not type(self.default) or not self._allows(value):
            raise ConfigError(f"{name} must be {self.allowed}, not {shown(value)}")
        if isinstance(value, str) and not is_plain(value):
            raise ConfigError(f"{name} must be text in UTF-8 without NUL characters, not {shown(value)}")
        if self.printable and isinstance(value, str) and not value.isprintable():
            raise ConfigError(f"{name} must be text without control and other invisible characters, not {shown(value)}")
        return value

    def _allows(self, value: Scalar) -> bool:
        if self.choices or isinstance(value, str):
            return not self.choices or value in self.choices
        return self.low <= value <= self.high and self.above < value < math.inf


def is_plain(text: str) -> bool:
    """Whether text can be written to a file and name one: it has no NUL, and no bytes that are not UTF-8 (PEP 383)."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return "\0" not in text


def shown(value: object) -> str:
    """Return a value for an error message, cut off if it is long."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[:SHOWN]}... ({len(text)} characters)"


def setting(
    default: Value,
    help: str,
    *,
    low: float = -math.inf,
    high: float = math.inf,
    above: float = -math.inf,
    choices: tuple[Value, ...] = (),
    since: Release = FIRST,
    printable: bool = False,
) -> Value:
    """Declare a field of a table of settings; the parameters are those of `Setting`."""
    declared = Setting(default, help, low, high, above, choices, since, printable)
    return field(default=default, metadata={"setting": declared})


@cache  # every client of a simulation reads what there is
def settings_of(table: type, prefix: str = "") -> Mapping[str, Setting]:
    """Return all settings of a table by their dotted names, those of tables inside included."""
    settings: dict[str, Setting] = {}
    for name, item in _fields(table).items():
        declared = item.metadata.get("setting")
        settings |= {prefix + name: declared} if declared else settings_of(item.default_factory, f"{prefix}{name}.")
    return MappingProxyType(settings)


def explain(table: type, name: str, prefix: str = "") -> str:
    """Describe one setting: its name, allowed values, default and help.

    Parameters
    ----------
    prefix
        Written before the name, e.g. ``games.`` if `table` is the one of games.

    Raises
    ------
    ConfigError
        If the setting is unknown; the message describes the one with the closest name.
    """
    declared = settings_of(table).get(name)
    if declared is None:
        raise _unknown(table, name, prefix)
    return f"{prefix}{name} ({declared.allowed}; {_written(declared.default)} by default): {declared.help}"


def settings_table(table: type) -> str:
    """Write all settings of a table as a Markdown table."""
    rows = [
        f"| `{name}` | `{_written(declared.default)}` | {declared.allowed} | {declared.help} |\n"
        for name, declared in settings_of(table).items()
    ]
    return "".join(["| setting | default | value | meaning |\n|---|---|---|---|\n", *rows])


def from_table(table: type[Table], values: Any, prefix: str = "") -> Table:
    """Build a table of settings from parsed TOML.

    Parameters
    ----------
    prefix
        Written before a setting's name in messages.

    Raises
    ------
    ConfigError
        If a setting is unknown, of another type or out of range.
    """
    if not isinstance(values, Mapping):
        name = prefix.removesuffix(".") or "the configuration"
        raise ConfigError(f"{name} must be a table of settings, not {shown(values)}")
    known, chosen = _fields(table), dict[str, Any]()
    for name, value in values.items():
        if name not in known:
            raise _unknown(table, name, prefix, value)
        item = known[name]
        declared = item.metadata.get("setting")
        chosen[item.name] = (
            declared.check(prefix + name, value)
            if declared
            else from_table(item.default_factory, value, f"{prefix}{name}.")
        )
    return table(**chosen)


def to_table(settings: Any) -> dict[str, Any]:
    """Write what `from_table` reads."""
    values = {name: getattr(settings, item.name) for name, item in _fields(type(settings)).items()}
    return {name: to_table(value) if is_dataclass(value) else value for name, value in values.items()}


def nested(values: Mapping[str, Scalar]) -> dict[str, Any]:
    """Return flat settings as the tables of a scenario file: ``{"games": {"per-client": 6}}``.

    Raises
    ------
    ConfigError
        If a name is the one of a setting and the one of a table.
    """
    tables: dict[str, Any] = {}
    for key, value in values.items():
        *path, name = key.split(".")
        table = tables
        for part in path:
            table = table.setdefault(part, {})
            if not isinstance(table, dict):
                raise ConfigError(f"{key} needs {part} to be a table of settings, not {table!r}")
        table[name] = value
    return tables


def flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Scalar]]:
    """Yield the settings of nested tables by their flat names, as `nested` reads them."""
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, which may begin with a byte order mark, as editors on Windows write it.

    Raises
    ------
    ConfigError
        If it cannot be read, or is not TOML.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot read {path}: {error}; it has to be a text file in UTF-8") from error
    try:
        return parse_toml(text)
    except ConfigError as error:
        raise ConfigError(f"{path} is {error}") from error


def parse_toml(text: str) -> dict[str, Any]:
    """Read the text of a TOML file, with or without a byte order mark.

    Raises
    ------
    ConfigError
        If it is not TOML; the message begins with ``not valid TOML``.
    """
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"not valid TOML: {error}") from error
    except ValueError as error:  # Python reads no whole numbers of more than 4,300 digits
        raise ConfigError("not valid TOML: a number in it has thousands of digits; write a shorter one") from error
    except RecursionError as error:
        raise ConfigError("not valid TOML: brackets in it are nested too deeply; settings need none") from error


def _fields(table: Any) -> dict[str, Any]:
    return {item.name.replace("_", "-"): item for item in fields(table)}


def _unknown(table: type, name: str, prefix: str, value: Any = None) -> ConfigError:
    known = settings_of(table)
    if name in known:
        return _quoted(prefix + name, value)
    closest = [full for full in known if full.rpartition(".")[2] == name] or get_close_matches(name, known, 1)
    hint = f"the closest is {explain(table, closest[0], prefix)}" if closest else f"known: {', '.join(_fields(table))}"
    return ConfigError(f"unknown setting {prefix}{name}; {hint}")


def _quoted(name: str, value: Any) -> ConfigError:
    """Return the error for a setting of a table inside whose whole name is one quoted key."""
    table, _, key = name.rpartition(".")
    written = _written(value) if isinstance(value, Scalar) else "..."
    line = f"{key} = {written if len(written) <= SHOWN else '...'}"
    return ConfigError(f"unknown setting {name!r}, a name in quotes: write it in the table [{table}] as {line}")


def _written(value: Scalar) -> str:
    return f"{value:.6g}" if isinstance(value, float) else json.dumps(value)
