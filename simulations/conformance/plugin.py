"""Determine the kind of a plug-in, and run its conformance checks."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from ...codecs.encoder import ENCODERS, MEMBERS, load_encoder
from ...games.families import FAMILIES, Family, family_of
from ...policies.backend import BACKENDS, load_backend
from ...protocol.errors import ConfigError
from ...protocol.plugins import POINTS, import_object
from ...strategies.experience import ExperienceStrategy
from ...strategies.registry import BUILT_IN, load_strategy
from . import codec, game, policy, strategy
from .checks import Outcome, run_checks

KINDS: Mapping[str, tuple[Any, Callable[[str], object]]] = MappingProxyType({
    "strategy": (strategy, load_strategy), "game": (game, family_of), "codec": (codec, load_encoder),
    "policy": (policy, load_backend),
})  # fmt: skip
BUILT_INS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"strategy": BUILT_IN, "game": FAMILIES, "codec": ENCODERS, "policy": BACKENDS}
)
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
        kinds = [kind for kind, point in POINTS.items() if name in {**BUILT_INS[kind], **point.installed()}]
        if len(kinds) != 1:
            known = f"the name of a {' and of a '.join(kinds)}" if kinds else "no plug-in that is built in or installed"
            raise ConfigError(f"{name!r} is {known}: {EXAMPLE}")
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
