"""Types of settings that a game family can declare, and the check of a specification against them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..protocol.errors import ConfigError
from ..protocol.play import GameSpec, Setting


@dataclass(frozen=True, slots=True)
class Number:
    """An integer from `low` to `high`, or one of `choices`; required when there is no default."""

    low: int
    high: int
    default: int | None = None
    choices: tuple[int, ...] = ()

    def check(self, value: Setting) -> int | None:
        """Return the value in canonical form, or None if it is not allowed."""
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        allowed = value in self.choices if self.choices else self.low <= value <= self.high
        return value if allowed else None

    def __str__(self) -> str:
        return f"one of {list(self.choices)}" if self.choices else f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean, written 1 or 0."""

    default: int = 0

    def check(self, value: Setting) -> int | None:
        """Return the value in canonical form, or None if it is not allowed."""
        return int(value) if isinstance(value, int) and value in (0, 1) else None

    def __str__(self) -> str:
        return "1 or 0"


@dataclass(frozen=True, slots=True)
class Word:
    """One of a fixed set of words."""

    choices: tuple[str, ...]
    default: str

    def check(self, value: Setting) -> str | None:
        """Return the value in canonical form, or None if it is not allowed."""
        return value if isinstance(value, str) and value in self.choices else None

    def __str__(self) -> str:
        return f"one of {list(self.choices)}"


Rule = Number | Flag | Word


def checked(spec: GameSpec, rules: Mapping[str, Rule]) -> dict[str, Setting]:
    """Return all settings of a specification in canonical form, sorted by name, with defaults filled in.

    Raises
    ------
    ConfigError
        If a setting is unknown, missing or out of range, or the turn limit is not positive.
    """
    settings = dict(spec.settings)
    for name in settings:
        if name not in rules:
            raise ConfigError(f"game {str(spec)!r}: unknown setting {name!r}; {spec.family} knows {sorted(rules)}")
    if spec.max_turns < 1:
        raise ConfigError(f"game {str(spec)!r}: an episode needs at least one turn, not {spec.max_turns}")
    return {name: _value(spec, name, rule, settings.get(name, rule.default)) for name, rule in sorted(rules.items())}


def _value(spec: GameSpec, name: str, rule: Rule, setting: Setting | None) -> Setting:
    if setting is None:
        raise ConfigError(f"game {str(spec)!r}: say {name}=..., {rule}")
    value = rule.check(setting)
    if value is None:
        raise ConfigError(f"game {str(spec)!r}: {name} must be {rule}, not {setting!r}")
    return value
