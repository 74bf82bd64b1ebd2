"""The verb ``plugins``: what can be plugged in here, from where it comes, and what it can be told."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from importlib.metadata import EntryPoint
from typing import Any

from ..codecs.encoder import ENCODERS, load_encoder
from ..games.families import FAMILIES, family_of
from ..policies.backend import BACKENDS, load_backend
from ..protocol.errors import FedoelError
from ..protocol.plugins import POINTS
from ..strategies.registry import BUILT_IN, load_strategy

OURS = "built in"
Row = tuple[str, str, str, str]


def run_verb(arguments: argparse.Namespace) -> int:
    """Print one line for each."""
    rows: list[Row] = [("kind", "name", "from", "options"), *listed()]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip())
    print("\nYour own: an entry point of the group 'fedoel.strategies', 'fedoel.codecs', 'fedoel.games' or")
    print("'fedoel.policies', or module:Name in the setting. To start one: fedoel new strategy|codec|game NAME")
    return 0


def listed() -> list[Row]:
    """Kind, name, origin and options of everything that is built in or installed."""
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
        rows += [(kind, name, _origin(point), _tried(describe, name)) for name, point in sorted(installed.items())]
    return rows


def _settings(name: str) -> str:
    """What a game can be told, each with its default or what it may be."""
    rules = family_of(name).rules
    return " ".join(f"{key}={f'({rule})' if rule.default is None else rule.default}" for key, rule in rules.items())


def _needs(verb: str, abilities: frozenset[str]) -> str:
    return f"{verb} {', '.join(sorted(abilities))}" if abilities else ""


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.value


def _tried(describe: Callable[[str], str], name: str) -> str:
    """One plug-in that cannot be imported must not hide the others."""
    try:
        return describe(name)
    except FedoelError as error:
        return f"cannot be used: {error}"
