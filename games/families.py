"""The game families by name: their settings, and how instances of them are prepared and built."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType

from ..protocol.errors import ConfigError
from ..protocol.play import GameSpec, Setting
from ..protocol.plugins import POINTS
from ..protocol.red_lines import check_red_lines, plain
from .assistant.engine import LANGUAGES, MOST_COMMANDS, SEVERAL, AssistantEngine, check_assistant
from .express import KINDS, ExpressEngine, missing
from .game import Engine, Game, RuledGame
from .grid.frozen_lake import FrozenLakeEngine, check_lake
from .grid.sokoban import SokobanEngine
from .orchard import LANDS, OrchardEngine
from .reasoning import TASKS, ReasoningEngine, check_reasoning
from .renamed import RenamedEngine, rename_command
from .tidy.asking import AskingEngine
from .tidy.engine import TidyEngine


@dataclass(frozen=True, slots=True)
class Number:
    """An integer from `low` to `high`, or one of `choices`; required when there is no default."""

    low: int
    high: int
    default: int | None = None
    choices: tuple[int, ...] = ()

    def check(self, value: Setting) -> int | None:
        """Return the value in canonical form, or None if it is not allowed."""
        if isinstance(value, bool) or not isinstance(value, int):
            return None
        allowed = value in self.choices if self.choices else self.low <= value <= self.high
        return value if allowed else None

    def __str__(self) -> str:
        return f"one of {list(self.choices)}" if self.choices else f"an integer from {self.low} to {self.high}"


@dataclass(frozen=True, slots=True)
class Flag:
    """A boolean, written 1 or 0."""

    default: int = 0

    def check(self, value: Setting) -> int | None:
        """Return the value in canonical form, or None if it is not allowed."""
        return int(value) if isinstance(value, int) and value in (0, 1) else None

    def __str__(self) -> str:
        return "1 or 0"


@dataclass(frozen=True, slots=True)
class Word:
    """One of a fixed set of words."""

    choices: tuple[str, ...]
    default: str

    def check(self, value: Setting) -> str | None:
        """Return the value in canonical form, or None if it is not allowed."""
        return value if isinstance(value, str) and value in self.choices else None

    def __str__(self) -> str:
        return f"one of {list(self.choices)}"


Rule = Number | Flag | Word
SPLITS = ("all", "train", "valid", "test")
RENAMED = "renamed"
COMMON_SETTINGS: Mapping[str, Rule] = MappingProxyType({RENAMED: Flag()})
"""Settings that every family has in addition to its own."""


def _nothing_to_prepare(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Family:
    """One game family. A family whose instances need no preparation gives `rules` and `engine` only.

    `check` gets the checked settings; the other functions also get the family's name, the cache folder and, where they
    concern one instance, its seed.

    Parameters
    ----------
    rules
        Allowed values of each setting, by name.
    engine
        Returns the engine, which does no work before its `start`.
    check
        Returns why a combination of individually valid settings is refused, or an empty string.
    ready
        Whether the instance of a seed is prepared; does no work.
    prepare
        Prepares the instance of a seed; returns False if it was prepared before.
    red_lines
        Commands that are harmful in these games, with ``*`` for any text: no version may make one likelier, whatever
        it wins.
    """

    rules: Mapping[str, Rule]
    engine: Callable[[str, Mapping[str, Setting], Path], Engine]
    check: Callable[[Mapping[str, Setting]], str] = lambda settings: ""
    ready: Callable[[str, Mapping[str, Setting], int, Path], bool] = lambda family, settings, seed, cache: True
    prepare: Callable[[str, Mapping[str, Setting], int, Path], bool] = _nothing_to_prepare
    red_lines: tuple[str, ...] = ()

    @property
    def prepares(self) -> bool:
        """Whether instances have to be prepared."""
        return self.prepare is not _nothing_to_prepare


@functools.cache
def family_of(name: str) -> Family:
    """Return a family: built in, installed under an entry point, or imported as ``module:Name``.

    Raises
    ------
    ConfigError
        If there is none of this name, it is not a `Family`, or it declares one of the `COMMON_SETTINGS` or red lines
        that are none.
    """
    family = POINTS["game"].find(name, FAMILIES)
    if not isinstance(family, Family):
        raise ConfigError(f"game family {name!r} is {family!r}, not a Family")
    if taken := family.rules.keys() & COMMON_SETTINGS.keys():
        raise ConfigError(f"game family {name!r} must rename its setting {', '.join(taken)}: every family has one")
    check_red_lines(family.red_lines, f"red_lines of the game family {name!r}")
    return family


def build_game(spec: GameSpec, cache: Path) -> Game:
    """Build the game that a specification describes. Instances are prepared when they are started.

    Parameters
    ----------
    spec
        Family, settings and turn limit.
    cache
        Folder for compiled games, shared between processes.

    Raises
    ------
    ConfigError
        If the family or a setting is unknown or out of range.
    """
    content, renamed = content_of(spec), settings_of(spec)[RENAMED]
    engine = family_of(spec.family).engine(spec.family, content, cache)
    return RuledGame(RenamedEngine(engine) if renamed else engine, spec.max_turns, repr(str(spec)))


def settings_of(spec: GameSpec) -> dict[str, Setting]:
    """Return all settings of a game in canonical form; raise `ConfigError` if one is invalid."""
    family = family_of(spec.family)
    settings = checked(spec, {**family.rules, **COMMON_SETTINGS})
    if refusal := family.check({name: settings[name] for name in family.rules}):
        raise ConfigError(f"game {str(spec)!r}: {refusal}")
    return settings


def checked(spec: GameSpec, rules: Mapping[str, Rule]) -> dict[str, Setting]:
    """Return all settings of a specification in canonical form, sorted by name, with defaults filled in.

    Raises
    ------
    ConfigError
        If a setting is unknown, missing or out of range, or the turn limit is not positive.
    """
    settings = dict(spec.settings)
    for name in settings:
        if name not in rules:
            raise ConfigError(f"game {str(spec)!r}: unknown setting {name!r}; {spec.family} knows {sorted(rules)}")
    if spec.max_turns < 1:
        raise ConfigError(f"game {str(spec)!r}: an episode needs at least one turn, not {spec.max_turns}")
    return {name: _value(spec, name, rule, settings.get(name, rule.default)) for name, rule in sorted(rules.items())}


def _value(spec: GameSpec, name: str, rule: Rule, setting: Setting | None) -> Setting:
    if setting is None:
        raise ConfigError(f"game {str(spec)!r}: say {name}=..., {rule}")
    value = rule.check(setting)
    if value is None:
        raise ConfigError(f"game {str(spec)!r}: {name} must be {rule}, not {setting!r}")
    return value


def content_of(spec: GameSpec) -> dict[str, Setting]:
    """Return the settings that determine a game's content (all but `renamed`), in canonical form."""
    return {name: value for name, value in settings_of(spec).items() if name != RENAMED}


def red_lines_of(specs: Iterable[GameSpec]) -> tuple[str, ...]:
    """Return the red lines that the families of these games declare, each once, in the words of the games."""
    lines = dict[str, None]()
    for spec in specs:
        renamed = settings_of(spec)[RENAMED]
        for line in map(plain, family_of(spec.family).red_lines):
            lines[rename_command(line) if renamed else line] = None
    return tuple(lines)


def unrenamed(spec: GameSpec) -> GameSpec:
    """Return the specification of the same game without the setting `renamed`."""
    return replace(spec, settings=tuple(pair for pair in spec.settings if pair[0] != RENAMED))


def is_prepared(spec: GameSpec, seed: int, cache: Path) -> bool:
    """Return whether the instance of a seed is prepared."""
    return family_of(spec.family).ready(spec.family, content_of(spec), seed, cache)


def prepare_game(spec: GameSpec, seed: int, cache: Path) -> bool:
    """Prepare the instance of a seed; return False if it was prepared before."""
    return family_of(spec.family).prepare(spec.family, content_of(spec), seed, cache)


def _textworld_engine(family: str, settings: Mapping[str, Setting], cache: Path) -> Engine:
    from .textworld.engine import TextWorldEngine

    return TextWorldEngine(family, settings, cache)


def _textworld_ready(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    from .textworld.compiled import is_compiled

    return is_compiled(family, settings, seed, cache)


def _textworld_prepare(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    from .textworld.compiled import is_compiled, story_file

    if is_compiled(family, settings, seed, cache):
        return False
    story_file(family, settings, seed, cache)
    return True


def _check_coin(settings: Mapping[str, Setting]) -> str:
    level = int(settings["level"])
    rooms = ((level - 1) // 100 + 1) * ((level - 1) % 100 + 1)
    return f"level={level} has {rooms} rooms, TextWorld 1.7 can do 100" if rooms > 100 else ""


def _check_cooking(settings: Mapping[str, Setting]) -> str:
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

_FROZEN_LAKE: Mapping[str, Rule] = {"size": Number(3, 5, default=3), "holes": Number(0, 16, default=0), "split": _SPLIT}
_SOKOBAN: Mapping[str, Rule] = {
    "size": Number(6, 8, default=6),
    "walls": Number(0, 4, default=1),
    "moves": Number(1, 20, default=5),
    "split": _SPLIT,
}

_TIDY: Mapping[str, Rule] = {
    "things": Number(1, 5, default=1),
    "rooms": Number(1, 3, default=1),
    "places": Number(3, 6, default=4),
    "final": Flag(),
    "open": Flag(),
    "split": _SPLIT,
}
_EXPRESS: Mapping[str, Rule] = {
    "kind": Word(tuple(KINDS), "twc"),
    "rooms": Number(2, 11, default=4),
    "items": Number(1, 5, default=1),
    "split": _SPLIT,
}
_ASSISTANT: Mapping[str, Rule] = {
    "language": Word((*LANGUAGES, SEVERAL), default="en"),
    "commands": Number(8, MOST_COMMANDS, default=8),
    "open": Flag(),
    "split": _SPLIT,
}
_REASONING: Mapping[str, Rule] = {
    "task": Word(tuple(TASKS), "needle"),
    "size": Number(2, 12, default=4),
    "open": Flag(),
}
_ORCHARD = Family(
    {"trees": Number(2, 7, default=4)},
    lambda family, settings, cache: OrchardEngine(family, int(settings["trees"])),
)
_TEXTWORLD = (_textworld_ready, _textworld_prepare)

FAMILIES: Mapping[str, Family] = MappingProxyType(
    {
        "coin-collector": Family({"level": Number(1, 300)}, _textworld_engine, _check_coin, *_TEXTWORLD),
        "treasure-hunter": Family({"level": Number(1, 30)}, _textworld_engine, lambda settings: "", *_TEXTWORLD),
        "cooking": Family(_COOKING, _textworld_engine, _check_cooking, *_TEXTWORLD),
        "frozen-lake": Family(_FROZEN_LAKE, lambda family, settings, cache: FrozenLakeEngine(settings), check_lake),
        "sokoban": Family(_SOKOBAN, lambda family, settings, cache: SokobanEngine(settings)),
        "tidy": Family(
            _TIDY, lambda family, settings, cache: (AskingEngine if settings["open"] else TidyEngine)(settings)
        ),
        "express": Family(
            _EXPRESS, lambda family, settings, cache: ExpressEngine(settings), lambda settings: missing()
        ),
        "assistant": Family(_ASSISTANT, lambda family, settings, cache: AssistantEngine(settings), check_assistant),
        "reasoning": Family(_REASONING, lambda family, settings, cache: ReasoningEngine(settings), check_reasoning),
        **dict.fromkeys(LANDS, _ORCHARD),
    }
)
