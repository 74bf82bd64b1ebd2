"""The verb ``plugins``: what can be plugged in here, where it comes from, and its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ..protocol.errors import FedoelError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

HELP = "list what can be plugged in, from where, and its options"
EXAMPLES = ("",)
OURS = "built in"
Row = tuple[str, str, str, str]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags: there are none."""


def run(arguments: argparse.Namespace) -> int:
    """Print one line for each plug-in."""
    rows: list[Row] = [("kind", "name", "from", "options"), *list_plugins()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
    print("\nYour own: an entry point of the group 'fedoel.strategies', 'fedoel.codecs', 'fedoel.games' or")
    print("'fedoel.policies', or module:Name in the setting. To start one: fedoel new strategy|codec|game NAME")
    return 0


def list_plugins() -> list[Row]:
    """Return kind, name, origin and options of everything that is built in or installed."""
    from ..codecs.encoder import ENCODERS, load_encoder
    from ..games.families import FAMILIES
    from ..policies.backend import BACKENDS, load_backend
    from ..protocol.plugins import POINTS
    from ..strategies.registry import BUILT_IN, load_strategy

    kinds: Mapping[str, tuple[Mapping[str, Any], Callable[[str], str]]] = {
        "strategy": (BUILT_IN, lambda name: " ".join(map(str, load_strategy(name).options().values()))),
        "codec": (ENCODERS, lambda name: _needs("needs", load_encoder(name).required_abilities)),
        "game": (FAMILIES, _settings),
        "policy": (BACKENDS, lambda name: _needs("has", load_backend(name).abilities)),
    }
    rows: list[Row] = []
    for kind, (built_in, describe) in kinds.items():
        installed = {name: point for name, point in POINTS[kind].installed().items() if name not in built_in}
        rows += [(kind, name, OURS, describe(name)) for name in built_in]
        rows += [(kind, name, _origin(point), _describe(describe, name)) for name, point in sorted(installed.items())]
    return rows


def _settings(name: str) -> str:
    """Return the settings of a game family, each with its default, or with its range where it has no default."""
    from ..games.families import family_of

    rules = family_of(name).rules
    return " ".join(f"{key}={f'({rule})' if rule.default is None else rule.default}" for key, rule in rules.items())


def _needs(verb: str, abilities: frozenset[str]) -> str:
    return f"{verb} {', '.join(sorted(abilities))}" if abilities else ""


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _describe(describe: Callable[[str], str], name: str) -> str:
    """Describe a plug-in; one that cannot be imported must not hide the others."""
    try:
        return describe(name)
    except FedoelError as error:
        return f"cannot be used: {error}"
