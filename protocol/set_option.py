"""The option ``--set key=value`` of commands that read a run's settings."""

from __future__ import annotations

import tomllib

from .config import RunConfig
from .errors import ConfigError
from .settings import Scalar, explain, settings_of, shown

SET_HELP = "one setting, e.g. games.per-client=4; `fedoel settings` lists and explains them"


def parse_setting(text: str) -> tuple[str, Scalar]:
    """Read ``key=value`` as in the option ``--set``: the value is TOML, or else text.

    Raises
    ------
    ConfigError
        If there is no such setting, or the value is none that it may have.
    """
    key, equals, written = (part.strip() for part in text.partition("="))
    if not key or not equals:
        raise ConfigError(f"--set {shown(text)}: write key=value, e.g. games.per-client=4")
    try:
        value = tomllib.loads(f"value = {written}")["value"]
    except tomllib.TOMLDecodeError:
        value = written
    except (ValueError, RecursionError) as error:  # thousands of digits, or of brackets
        raise ConfigError(f"--set {key}: {shown(written)} is too long for a number or a setting") from error
    if not isinstance(value, int | float | str | bool):
        raise ConfigError(f"--set {shown(text)}: the value must be a number, text, true or false")
    try:
        if key not in (known := settings_of(RunConfig)):
            explain(RunConfig, key)  # raises the error that names the closest one
        if isinstance(known[key].default, str) and not isinstance(value, str):
            value = written  # text that looks like a number, such as the only stage of a rollout
        return key, known[key].check(key, value)
    except ConfigError as error:
        raise ConfigError(f"--set {shown(text)}: {error}") from error
