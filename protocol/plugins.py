"""Things that can be plugged in, by name: built in, installed under an entry point, or one's own as ``module:Name``.

Imports the standard library only: a device looks up codecs, games and policies in the same way as a server.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType

from .errors import ConfigError


@dataclass(frozen=True, slots=True)
class Point:
    """A place where something can be plugged in.

    Parameters
    ----------
    what
        What goes there, in a word.
    setting
        What names it in a run's configuration.
    group
        Group of entry points.
    """

    what: str
    setting: str
    group: str

    def installed(self) -> Mapping[str, EntryPoint]:
        """Entry points of installed packages by name."""
        return {point.name: point for point in entry_points(group=self.group)}

    def find(self, name: str, built_in: Mapping[str, object]) -> object:
        """Find what a name stands for. What is built in cannot be replaced by a package that uses its name.

        Parameters
        ----------
        built_in
            What has names of its own: the object, or ``module:Name`` where it is imported when it is asked for.

        Raises
        ------
        ConfigError
            If there is nothing of that name, or it cannot be imported.
        """
        if ":" in name:
            return import_object(name, self.setting)
        if name in built_in:
            found = built_in[name]
            return import_object(found, self.setting) if isinstance(found, str) else found
        if (point := self.installed().get(name)) is not None:
            return _load(point.load, f"{self.what} {name!r} is installed but")
        choices = ", ".join(dict.fromkeys([*built_in, *sorted(self.installed())]))
        raise ConfigError(f"unknown {self.setting} {name!r}; known are {choices}, or name 'module:Name'")


def import_object(name: str, what: str) -> object:
    """Import ``module:Name``.

    Parameters
    ----------
    what
        What an error calls it.

    Raises
    ------
    ConfigError
        If it cannot be imported.
    """
    module, _, attribute = name.partition(":")
    return _load(lambda: getattr(import_module(module), attribute), f"{what} {name!r}")


def _load(load: Callable[[], object], subject: str) -> object:
    try:
        return load()
    except Exception as error:  # the module of a plug-in is code of others: anything may be wrong with it
        reason = f"{error}" if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        raise ConfigError(f"{subject} cannot be imported: {reason}") from error


POINTS: Mapping[str, Point] = MappingProxyType(
    {
        point.what: point
        for point in (
            Point("strategy", "strategy.name", "fedoel.strategies"),
            Point("codec", "codec.name", "fedoel.codecs"),
            Point("game", "game family", "fedoel.games"),
            Point("policy", "policy.backend", "fedoel.policies"),
        )
    }
)
