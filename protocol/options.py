"""Options of plug-ins: the keyword-only parameters of a class, and their values from one line of text.

Flower's run config holds scalars under names that are known beforehand. Only the plug-in knows its options, so they
travel as text, ``beta=0.2 num-clusters=3``, the form that games have too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, get_type_hints

from .errors import ConfigError
from .settings import Scalar, Setting

PARSERS: Mapping[type, Callable[[str], Scalar]] = {
    bool: lambda text: {"true": True, "false": False}[text],
    int: int,
    float: float,
    str: str,
}


@dataclass(frozen=True, slots=True)
class Option:
    """One option: its name as it is written, and what its values may be."""

    name: str
    setting: Setting

    @property
    def default(self) -> Scalar:
        """Value if none is given."""
        return self.setting.default

    def __str__(self) -> str:
        return f"{self.name}={str(self.default).lower() if isinstance(self.default, bool) else self.default}"

    def read(self, text: str) -> Scalar:
        """Read a value.

        Raises
        ------
        ConfigError
            If it is not of the option's type, or not finite.
        """
        value: Scalar = text
        with suppress(ValueError, KeyError):
            value = PARSERS[type(self.default)](text)
        return self.setting.check(f"option {self.name}", value)


def options_of(plugin: type, base: type) -> Mapping[str, Option]:
    """Return the options of a class: the keyword-only parameters of its constructors, down to those of `base`.

    Returns
    -------
    mapping
        Options by the name of their parameter.

    Raises
    ------
    ConfigError
        If such a parameter has no default, or is not annotated as int, float, str or bool.
    """
    options: dict[str, Option] = {}
    for owner in reversed([owner for owner in plugin.__mro__ if issubclass(owner, base) and owner is not base]):
        if "__init__" in vars(owner):
            options |= _parameters(owner)
    return options


def read_options(text: str, known: Mapping[str, Option]) -> dict[str, Scalar]:
    """Read ``name=value`` words into values by the name of the parameter; options that are not given are left out.

    Raises
    ------
    ConfigError
        If a word is not ``name=value``, or names an option that is unknown or given twice.
    """
    parameters, values = {option.name: parameter for parameter, option in known.items()}, dict[str, Scalar]()
    for word in text.split():
        name, equals, value = word.partition("=")
        if not equals or name not in parameters:
            choices = ", ".join(map(str, known.values())) or "none"
            raise ConfigError(f"unknown option {word!r}; write name=value, known here: {choices}")
        if parameters[name] in values:
            raise ConfigError(f"option {name} is given twice")
        values[parameters[name]] = known[parameters[name]].read(value)
    return values


def _parameters(owner: type) -> dict[str, Option]:
    constructor: Any = vars(owner)["__init__"]
    try:
        hints = get_type_hints(constructor)
    except NameError as error:
        raise ConfigError(f"annotations of {owner.__name__} cannot be read: {error}; import what they name") from error
    options: dict[str, Option] = {}
    for parameter in inspect.signature(constructor).parameters.values():
        if parameter.kind is not parameter.KEYWORD_ONLY:
            continue
        annotation, default = hints.get(parameter.name), parameter.default
        if annotation is float and type(default) is int:
            default = float(default)
        if annotation not in PARSERS or type(default) is not annotation:
            raise ConfigError(
                f"option {parameter.name!r} of {owner.__name__} needs a default, and to be annotated as one of "
                f"{', '.join(scalar.__name__ for scalar in PARSERS)}"
            )
        name = parameter.name.strip("_").replace("_", "-")
        options[parameter.name] = Option(name, Setting(default))
    return options
