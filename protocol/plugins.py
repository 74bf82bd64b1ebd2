"""Things that can be plugged in, by name: built in, installed under an entry point, or one's own as ``module:Name``.

Imports the standard library only: a device looks up codecs, games and policies in the same way as a server.
"""

from __future__ import annotations

from collections.abc import Mapping
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
            return self._import(name)
        if name in built_in:
            found = built_in[name]
            return self._import(found) if isinstance(found, str) else found
        if (point := self.installed().get(name)) is not None:
            try:
                return point.load()
            except (ImportError, AttributeError) as error:
                raise ConfigError(f"{self.what} {name!r} is installed but cannot be imported: {error}") from error
        choices = ", ".join(dict.fromkeys([*built_in, *sorted(self.installed())]))
        raise ConfigError(f"unknown {self.setting} {name!r}; known are {choices}, or name 'module:Name'")

    def _import(self, name: str) -> object:
        module, _, attribute = name.partition(":")
        try:
            found: object = getattr(import_module(module), attribute)
        except (ImportError, AttributeError, ValueError) as error:
            raise ConfigError(f"{self.setting} {name!r} cannot be imported: {error}") from error
        return found


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
