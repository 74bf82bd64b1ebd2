"""Strategies by name: installed ones by entry point, one's own as ``module:Class``."""

from __future__ import annotations

from importlib import import_module
from importlib.metadata import entry_points
from types import MappingProxyType

from ..protocol.errors import ConfigError
from .experience import ExperienceStrategy
from .mean import Mean
from .noisy_mean import CentralMean, LocalMean
from .secure_mean import SecureMean

GROUP = "fedoel.strategies"
BUILT_IN = MappingProxyType(
    {"mean": Mean, "secure-mean": SecureMean, "central-mean": CentralMean, "local-mean": LocalMean}
)


def load_strategy(name: str) -> type[ExperienceStrategy]:
    """Find a strategy class.

    Parameters
    ----------
    name
        Name of an entry point in the group ``fedoel.strategies``, or ``module:Class``.

    Raises
    ------
    ConfigError
        If there is none, it cannot be imported, or it is not an `ExperienceStrategy`.
    """
    found = _import(name) if ":" in name else _installed(name)
    if not (isinstance(found, type) and issubclass(found, ExperienceStrategy)):
        raise ConfigError(f"strategy.name {name!r} is {found!r}, not a subclass of ExperienceStrategy")
    return found


def known() -> list[str]:
    """Names that need no module."""
    return sorted({*BUILT_IN, *entry_points(group=GROUP).names})


def _installed(name: str) -> object:
    matching = tuple(entry_points(group=GROUP, name=name))
    if matching:
        try:
            return matching[0].load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"strategy {name!r} is installed but cannot be imported: {error}") from error
    if name in BUILT_IN:
        return BUILT_IN[name]
    raise ConfigError(f"unknown strategy.name {name!r}; known are {', '.join(known())}, or name 'module:Class'")


def _import(name: str) -> object:
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        choices = ", ".join(known())
        raise ConfigError(f"strategy.name {name!r} cannot be imported: {error}; known are {choices}") from error
