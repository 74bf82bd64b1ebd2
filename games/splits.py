"""Seeds that are disjoint by construction: what a client plays alone, what is public, and what is only reported on."""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ..protocol.errors import ConfigError, GameError
from ..protocol.play import GameSpec
from .families import content_of, family_of, settings_of

CLIENTS = 10_000
GAMES_PER_CLIENT = 10_000
PUBLIC_GAMES = 100_000_000


class Split(Enum):
    """Who may play a game. The value is the first seed of its range."""

    PRIVATE = 0
    REHEARSAL = 1_000_000_000
    GATE = 1_100_000_000
    HELD_OUT = 1_200_000_000


# Foods of cooking games, boards of grid games.
_CONTENT = {Split.PRIVATE: "train", Split.REHEARSAL: "train", Split.GATE: "valid", Split.HELD_OUT: "test"}


def game_seed(split: Split, index: int, client: int = 0) -> int:
    """Return the seed of the `index`-th game of a split; private games are further divided by client.

    Raises
    ------
    ConfigError
        If the client or the index is outside of the range that is reserved for it.
    """
    if split is not Split.PRIVATE:
        if client:
            raise ConfigError(f"{split.name} games are public: they have no client, not {client}")
        return int(split.value) + _within(index, PUBLIC_GAMES, f"index of a {split.name} game")
    if client >= CLIENTS:
        raise ConfigError(f"more clients than seeds: client {client}, but there are seeds for {CLIENTS}")
    return _within(client, CLIENTS, "client") * GAMES_PER_CLIENT + _within(index, GAMES_PER_CLIENT, "private game")


def for_split(spec: GameSpec, split: Split) -> GameSpec:
    """Return the specification to use in a split: where a family divides its content too, with that division."""
    settings_of(spec)
    if "split" not in family_of(spec.family).rules:
        return spec
    settings = {**dict(spec.settings), "split": _CONTENT[split]}
    return GameSpec(spec.family, tuple(sorted(settings.items())), spec.max_turns)


def fingerprint(spec: GameSpec, seed: int) -> tuple[object, ...]:
    """Identify the content of a game, however long it may be played, and in which words."""
    return spec.family, *sorted(content_of(spec).items()), seed


def assert_disjoint(trained: Iterable[tuple[GameSpec, int]], held_out: Iterable[tuple[GameSpec, int]]) -> None:
    """Prove that no held-out game was trained on.

    Raises
    ------
    GameError
        If there is one, naming it.
    """
    seen = {fingerprint(spec, seed) for spec, seed in trained}
    for spec, seed in held_out:
        if fingerprint(spec, seed) in seen:
            raise GameError(f"held-out game '{spec}' with seed {seed} was trained on: draw both with game_seed()")


def _within(value: int, limit: int, what: str) -> int:
    if not 0 <= value < limit:
        raise ConfigError(f"{what} must be between 0 and {limit - 1}, not {value}")
    return value
