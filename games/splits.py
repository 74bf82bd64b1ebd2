"""Splits of games with disjoint seed ranges: private games of each client, public games, and held-out games."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from enum import Enum

import numpy as np

from ..protocol.errors import ConfigError, GameError
from ..protocol.play import GAMES_PER_CLIENT, GameSpec
from .families import content_of, family_of, settings_of

CLIENTS = 100_000  # whose seeds end where those of rehearsal games begin
PUBLIC_GAMES = 100_000_000
SECRET_GAMES = range(1_300_000_000, 2**31 - 1)  # seeds of private games that only a device knows, behind all others


class Split(Enum):
    """What games are used for. The value is the first seed of the split's range."""

    PRIVATE = 0
    REHEARSAL = 1_000_000_000
    GATE = 1_100_000_000
    HELD_OUT = 1_200_000_000


# Value of the family's own `split` setting: foods of cooking games, boards of grid games, things to tidy up, sentences.
_CONTENT_SPLIT = {Split.PRIVATE: "train", Split.REHEARSAL: "train", Split.GATE: "valid", Split.HELD_OUT: "test"}


def game_seed(split: Split, index: int, client: int = 0) -> int:
    """Return the seed of the `index`-th game of a split; each client has its own range of private games.

    Raises
    ------
    ConfigError
        If the client or the index is outside of its range.
    """
    if split is not Split.PRIVATE:
        if client:
            raise ConfigError(f"{split.name} games are public: they have no client, not {client}")
        return int(split.value) + _within(index, PUBLIC_GAMES, f"index of a {split.name} game")
    if client >= CLIENTS:
        raise ConfigError(
            f"more clients than seeds: there are private games for {CLIENTS:,} clients, and not for {client + 1:,}"
        )
    return _within(client, CLIENTS, "client") * GAMES_PER_CLIENT + _within(index, GAMES_PER_CLIENT, "private game")


def secret_seed(secret: int, cycle: int, index: int) -> int:
    """Return the seed of a private game that only who knows the secret can tell; no public game has it.

    All games of one secret are in one block of `GAMES_PER_CLIENT` seeds, as those of a simulated client are: families
    may draw a client's home or habits from the block.
    """
    block = _drawn([secret], len(SECRET_GAMES) // GAMES_PER_CLIENT)
    return SECRET_GAMES[block * GAMES_PER_CLIENT + _drawn([secret, cycle, index], GAMES_PER_CLIENT)]


def _drawn(entropy: Sequence[int], limit: int) -> int:
    return int(np.random.SeedSequence(entropy).generate_state(1, np.uint64)[0]) % limit


def for_split(spec: GameSpec, split: Split) -> GameSpec:
    """Return the specification to use in a split: its `split` setting is set if the family divides its content too."""
    settings_of(spec)
    if "split" not in family_of(spec.family).rules:
        return spec
    settings = {**dict(spec.settings), "split": _CONTENT_SPLIT[split]}
    return GameSpec(spec.family, tuple(sorted(settings.items())), spec.max_turns)


def fingerprint(spec: GameSpec, seed: int) -> tuple[object, ...]:
    """Return what identifies a game's content: everything but the turn limit and the wording (`renamed`)."""
    return spec.family, *sorted(content_of(spec).items()), seed


def assert_disjoint(trained: Iterable[tuple[GameSpec, int]], held_out: Iterable[tuple[GameSpec, int]]) -> None:
    """Check that no held-out game was trained on.

    Raises
    ------
    GameError
        If one was; the message names the first.
    """
    trained_on = {fingerprint(spec, seed) for spec, seed in trained}
    for spec, seed in held_out:
        if fingerprint(spec, seed) in trained_on:
            raise GameError(f"held-out game '{spec}' with seed {seed} was trained on: draw both with game_seed()")


def _within(value: int, limit: int, name: str) -> int:
    if not 0 <= value < limit:
        raise ConfigError(f"{name} must be between 0 and {limit - 1}, not {value}")
    return value
