"""Options of what can be plugged in: the keyword-only parameters of a class, and their values from one line of text.

Flower's run config holds scalars under names that are known beforehand. What a plug-in can be told is known to the
plug-in alone, so its options travel as text, ``beta=0.2 num-clusters=3``, the form that games have too.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_type_hints

from .errors import ConfigError

Value = int | float | str | bool
KINDS: Mapping[type, Callable[[str], Value]] = {
    bool: lambda text: {"true": True, "false": False}[text],
    int: int,
    float: float,
    str: str,
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as it is written, the type of its values, and the one that it has when nothing is said."""

    name: str
    kind: type
    default: Value

    def __str__(self) -> str:
        return f"{self.name}={str(self.default).lower() if self.kind is bool else self.default}"

    def read(self, text: str) -> Value:
        """Read a value.

        Raises
        ------
        ConfigError
            If it is not of the option's type, or not finite.
        """
        try:
            value = KINDS[self.kind](text)
        except (ValueError, KeyError) as error:
            raise ConfigError(f"option {self.name} must be {self.kind.__name__}, not {text!r}") from error
        if isinstance(value, float) and not math.isfinite(value):
            raise ConfigError(f"option {self.name} must be finite, not {text!r}")
        return value


def options_of(kind: type, base: type) -> Mapping[str, Option]:
    """Find the options of a class: what its constructors, down to those of `base`, take by keyword only.

    Returns
    -------
    mapping
        Options by the name of their parameter.

    Raises
    ------
    ConfigError
        If such a parameter has no default, or is not annotated as int, float, str or bool.
    """
    found: dict[str, Option] = {}
    for owner in reversed([each for each in kind.__mro__ if issubclass(each, base) and each is not base]):
        if "__init__" in vars(owner):
            found |= _parameters(owner)
    return found


def read_options(text: str, known: Mapping[str, Option]) -> dict[str, Value]:
    """Read ``name=value`` words into values by the name of the parameter; what is not said is left out.

    Raises
    ------
    ConfigError
        If a word is none, or names an option that is not known or was named before.
    """
    by_name, values = {option.name: parameter for parameter, option in known.items()}, dict[str, Value]()
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in by_name:
            choices = ", ".join(map(str, known.values())) or "none"
            raise ConfigError(f"unknown option {word!r}; write name=value, known here: {choices}")
        if by_name[name] in values:
            raise ConfigError(f"option {name} is given twice")
        values[by_name[name]] = known[by_name[name]].read(value)
    return values


def _parameters(owner: type) -> dict[str, Option]:
    constructor: Any = vars(owner)["__init__"]
    try:
        hints = get_type_hints(constructor)
    except NameError as error:
        raise ConfigError(f"annotations of {owner.__name__} cannot be read: {error}; import what they name") from error
    found: dict[str, Option] = {}
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        kind = hints.get(parameter.name)
        if kind is None or kind not in KINDS or parameter.default is parameter.empty:
            raise ConfigError(
                f"option {parameter.name!r} of {owner.__name__} needs a default, and to be annotated as one of "
                f"{', '.join(each.__name__ for each in KINDS)}"
            )
        name = parameter.name.strip("_").replace("_", "-")
        found[parameter.name] = Option(name, kind, parameter.default)
    return found
