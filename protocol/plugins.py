"""Plug-in lookup by name: built in, installed under an entry point, or imported as ``module:Name``.

A module may lie in the folder in which the command line was called. That folder is searched after all others, in this
process and in those that it starts: a file named ``random.py`` there replaces no module of anybody else. PYTHONPATH
would search it first.

Devices and servers use the same lookup. Depends on the standard library only.
"""

from __future__ import annotations

import os
import stat
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from types import MappingProxyType
from typing import Any

from .errors import ConfigError

PLUGINS = "FEDOEL_PLUGINS"  # environment variable with the folder


def search_folder(folder: str) -> None:
    """Let plug-ins be found in a folder, unless everybody may write to it."""
    if os.path.isdir(folder) and not _is_open(folder):
        os.environ[PLUGINS] = folder


def _is_open(folder: str) -> bool:
    """Whether everybody may write to a folder."""
    return bool(os.stat(folder).st_mode & stat.S_IWOTH)


def _search() -> None:
    """Search the folder of plug-ins after all others."""
    folder = os.environ.get(PLUGINS, "")
    if folder and folder not in sys.path:
        sys.path.append(folder)


@dataclass(frozen=True, slots=True)
class PluginPoint:
    """One kind of plug-in.

    Parameters
    ----------
    kind
        Kind of the plug-in, one word.
    setting
        The setting of a run's configuration that names it.
    group
        Its entry point group.
    """

    kind: str
    setting: str
    group: str

    def installed(self) -> Mapping[str, EntryPoint]:
        """Return the entry points of installed packages by name."""
        return {point.name: point for point in entry_points(group=self.group)}

    def find(self, name: str, built_in: Mapping[str, object]) -> object:
        """Return the plug-in of a name. An installed package cannot replace a built-in plug-in.

        Parameters
        ----------
        name
            A built-in name, an entry point, or ``module:Name``.
        built_in
            Built-in plug-ins by name: the object, or ``module:Name`` for one to import on demand.

        Raises
        ------
        ConfigError
            If the name is unknown, or the plug-in cannot be imported.
        """
        if ":" in name:
            return import_object(name, self.setting)
        if name in built_in:
            plugin = built_in[name]
            return import_object(plugin, self.setting) if isinstance(plugin, str) else plugin
        if (entry_point := self.installed().get(name)) is not None:
            return _load(entry_point.load, f"{self.kind} {name!r} is installed but")
        choices = ", ".join(dict.fromkeys([*built_in, *sorted(self.installed())]))
        raise ConfigError(f"unknown {self.setting} {name!r}; known are {choices}, or name 'module:Name'")

    def find_instance(self, name: str, built_in: Mapping[str, object], what: str, members: Sequence[str]) -> Any:
        """Return the plug-in of a name, or an instance of it if it is a class; raises as `find` does.

        Parameters
        ----------
        what, members
            What the object must be, for an error, and the attributes that make it one.

        Raises
        ------
        ConfigError
            If it cannot be made, or lacks a member.
        """
        plugin = self.find(name, built_in)
        made = f"{self.setting} {name!r}"
        instance = _load(plugin, made, "made") if isinstance(plugin, type) else plugin
        if missing := [member for member in members if not hasattr(instance, member)]:
            raise ConfigError(f"{self.setting} {name!r} is no {what}: it has no {', '.join(missing)}")
        return instance


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
    _search()
    return _load(lambda: getattr(import_module(module), attribute), f"{what} {name!r}")


def _load(load: Callable[[], object], subject: str, done: str = "imported") -> object:
    try:
        return load()
    except ConfigError:
        raise
    except (Exception, SystemExit) as error:  # a plug-in is code of others: its import may raise anything
        reason = f"{error}" if isinstance(error, ImportError) else f"{type(error).__name__}: {error}"
        if isinstance(error, ModuleNotFoundError) and not os.environ.get(PLUGINS) and _is_open(os.curdir):
            reason += "; the working folder is not searched, because everybody may write to it"
        raise ConfigError(f"{subject} cannot be {done}: {reason}") from error


POINTS: Mapping[str, PluginPoint] = MappingProxyType(
    {
        point.kind: point
        for point in (
            PluginPoint("strategy", "strategy.name", "fedoel.strategies"),
            PluginPoint("codec", "codec.name", "fedoel.codecs"),
            PluginPoint("game", "game family", "fedoel.games"),
            PluginPoint("policy", "policy.backend", "fedoel.policies"),
        )
    }
)
