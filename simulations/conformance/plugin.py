"""Determine the kind of a plug-in, and run its conformance checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ...codecs.encoder import MEMBERS, load_encoder
from ...games.families import Family, family_of
from ...policies.backend import load_backend
from ...protocol.errors import ConfigError
from ...protocol.plugins import POINTS, import_object
from ...strategies.experience import ExperienceStrategy
from ...strategies.registry import load_strategy
from . import codec, game, policy, strategy
from .checks import Outcome, run_checks

KINDS: Mapping[str, tuple[Any, Callable[[str], object]]] = MappingProxyType({
    "strategy": (strategy, load_strategy), "game": (game, family_of), "codec": (codec, load_encoder),
    "policy": (policy, load_backend),
})  # fmt: skip
EXAMPLE = "write module:Name, e.g. my_package.mine:Mine"


def check_plugin(name: str, kind: str = "") -> tuple[str, list[Outcome]]:
    """Run the checks of a plug-in.

    Parameters
    ----------
    name
        ``module:Name``, or the name of an installed plug-in.
    kind
        Its kind; determined from the plug-in if empty.

    Returns
    -------
    kind, outcomes
        Its kind, and the outcome of each check.

    Raises
    ------
    ConfigError
        If the plug-in cannot be found, or is of no known kind.
    """
    kind = kind or kind_of(name)
    module, load = KINDS[kind]
    checks = [member for member_name, member in vars(module).items() if member_name.startswith("check_")]
    return kind, run_checks(checks, module.Named(name, load(name)))


def kind_of(name: str) -> str:
    """Return the kind of a plug-in.

    Raises
    ------
    ConfigError
        If the plug-in cannot be found, or its kind cannot be determined.
    """
    if ":" not in name:
        kinds = [kind for kind, point in POINTS.items() if name in point.installed()]
        if len(kinds) != 1:
            raise ConfigError(f"{name!r} is installed as {' and '.join(kinds) or 'no plug-in'}: {EXAMPLE}")
        return kinds[0]
    plugin = import_object(name, "plug-in")
    if isinstance(plugin, type) and issubclass(plugin, ExperienceStrategy):
        return "strategy"
    if isinstance(plugin, Family):
        return "game"
    if all(hasattr(plugin, member) for member in MEMBERS):
        return "codec"
    if all(hasattr(plugin, member) for member in ("abilities", "load")):
        return "policy"
    raise ConfigError(
        f"{name!r} is {plugin!r}: neither a subclass of ExperienceStrategy, nor a Family of games, nor an encoder "
        f"({', '.join(MEMBERS)}), nor a policy's backend (abilities, load)"
    )
