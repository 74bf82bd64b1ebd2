"""The families of games by name: which settings they have and how an instance of them is built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..protocol.errors import ConfigError
from ..protocol.play import GameSpec, Setting
from ..protocol.plugins import POINTS
from . import frozen_lake, orchard, sokoban
from .game import Engine, Game, RuledGame
from .renamed import RenamedEngine
from .settings import Flag, Number, Rule, Word, checked

SPLITS = ("all", "train", "valid", "test")
RENAMED = "renamed"
EVERY_FAMILY: Mapping[str, Rule] = MappingProxyType({RENAMED: Flag()})
"""Settings that every family has, beside its own."""


@dataclass(frozen=True, slots=True)
class Family:
    """One family of games; one that is made as it is played needs no more than rules and an engine.

    Parameters
    ----------
    rules
        Name and allowed values of each setting.
    engine
        Builds the engine from the checked settings and the cache folder, without doing any work yet.
    check
        Refuses combinations of settings that are fine one by one, by returning why.
    ready
        Tells whether one instance is ready to be started, without doing any work.
    prepare
        Makes one instance ready to be started and returns whether there was something to do.
    """

    rules: Mapping[str, Rule]
    engine: Callable[[str, Mapping[str, Setting], Path], Engine]
    check: Callable[[Mapping[str, Setting]], str] = lambda settings: ""
    ready: Callable[[str, Mapping[str, Setting], int, Path], bool] = lambda family, settings, seed, cache: True
    prepare: Callable[[str, Mapping[str, Setting], int, Path], bool] = lambda family, settings, seed, cache: False


@functools.cache
def family_of(name: str) -> Family:
    """Return a family: built in, installed, or one's own as ``module:Name``.

    Raises
    ------
    ConfigError
        If there is none of this name, it is no family, or it has a setting that every family has.
    """
    found = POINTS["game"].find(name, FAMILIES)
    if not isinstance(found, Family):
        raise ConfigError(f"game family {name!r} is {found!r}, not a Family")
    if taken := found.rules.keys() & EVERY_FAMILY.keys():
        raise ConfigError(f"game family {name!r} must call {', '.join(taken)} something else: every family has it")
    return found


def build_game(spec: GameSpec, cache: Path) -> Game:
    """Build the game that a specification describes; its instances are made when they are started.

    Parameters
    ----------
    spec
        Family, settings and turn limit.
    cache
        Folder for compiled games, shared by processes.

    Raises
    ------
    ConfigError
        If the family or a setting is unknown or out of range.
    """
    content, renamed = content_of(spec), settings_of(spec)[RENAMED]
    engine = family_of(spec.family).engine(spec.family, content, cache)
    return RuledGame(RenamedEngine(engine) if renamed else engine, spec.max_turns)


def settings_of(spec: GameSpec) -> dict[str, Setting]:
    """Return every setting of a game in canonical form, after checking them."""
    family = family_of(spec.family)
    settings = checked(spec, {**family.rules, **EVERY_FAMILY})
    if problem := family.check({name: settings[name] for name in family.rules}):
        raise ConfigError(f"game {str(spec)!r}: {problem}")
    return settings


def content_of(spec: GameSpec) -> dict[str, Setting]:
    """Return the settings that decide what a game holds, and not in which words it is played, after checking all."""
    return {name: value for name, value in settings_of(spec).items() if name != RENAMED}


def unrenamed(spec: GameSpec) -> GameSpec:
    """Return the specification of the same game in its own words."""
    return replace(spec, settings=tuple(pair for pair in spec.settings if pair[0] != RENAMED))


def is_prepared(spec: GameSpec, seed: int, cache: Path) -> bool:
    """Return whether one instance is ready to be started."""
    return family_of(spec.family).ready(spec.family, content_of(spec), seed, cache)


def prepare_game(spec: GameSpec, seed: int, cache: Path) -> bool:
    """Make one instance ready to be started; return whether there was something to do."""
    return family_of(spec.family).prepare(spec.family, content_of(spec), seed, cache)


def _textworld_engine(family: str, settings: Mapping[str, Setting], cache: Path) -> Engine:
    from .textworld_engine import TextWorldEngine

    return TextWorldEngine(family, settings, cache)


def _textworld_ready(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    from .store import is_ready

    return is_ready(family, settings, seed, cache)


def _textworld_prepare(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    from .store import game_file, is_ready

    if is_ready(family, settings, seed, cache):
        return False
    game_file(family, settings, seed, cache)
    return True


def _coin_problem(settings: Mapping[str, Setting]) -> str:
    level = int(settings["level"])
    rooms = ((level - 1) // 100 + 1) * ((level - 1) % 100 + 1)
    return f"level={level} has {rooms} rooms, TextWorld 1.7 can do 100" if rooms > 100 else ""


def _cooking_problem(settings: Mapping[str, Setting]) -> str:
    take, recipe = int(settings["take"]), int(settings["recipe"])
    return f"take={take} is more than the {recipe} ingredients of the recipe" if take > recipe else ""


_SPLIT = Word(SPLITS, default="all")
_COOKING: Mapping[str, Rule] = {
    "recipe": Number(1, 5, default=1),
    "take": Number(0, 5, default=0),
    "go": Number(1, 12, default=1, choices=(1, 6, 9, 12)),
    "open": Flag(),
    "cook": Flag(),
    "cut": Flag(),
    "drop": Flag(),
    "split": _SPLIT,
}

_LAKE: Mapping[str, Rule] = {"size": Number(3, 5, default=3), "holes": Number(0, 16, default=0), "split": _SPLIT}
_SOKOBAN: Mapping[str, Rule] = {
    "size": Number(6, 8, default=6),
    "walls": Number(0, 4, default=1),
    "moves": Number(1, 20, default=5),
    "split": _SPLIT,
}

_TEXTWORLD = (_textworld_ready, _textworld_prepare)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "coin-collector": Family({"level": Number(1, 300)}, _textworld_engine, _coin_problem, *_TEXTWORLD),
        "treasure-hunter": Family({"level": Number(1, 30)}, _textworld_engine, lambda settings: "", *_TEXTWORLD),
        "cooking": Family(_COOKING, _textworld_engine, _cooking_problem, *_TEXTWORLD),
        "frozen-lake": Family(_LAKE, frozen_lake.make_engine, frozen_lake.check_lake),
        "sokoban": Family(_SOKOBAN, sokoban.make_engine),
        **{name: Family({"trees": Number(2, 7, default=4)}, orchard.make_engine) for name in orchard.LANDS},
    }
)
