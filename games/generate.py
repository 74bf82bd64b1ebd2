"""Make one TextWorld game: generate it from a seed and compile it, leaving no trace in global state."""

from __future__ import annotations

import functools
import importlib
import os
import random
import tempfile
import threading
import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from ..protocol.errors import GameError
from ..protocol.play import Setting
from .inform import compile_game
from .rehearsal import set_walkthrough

ATTEMPTS = 50
"""Some seeds admit no game (e.g. treasure hunter from level 9 on): seeds derived from them are tried in turn."""

_CHALLENGES = {
    "coin-collector": "tw-coin_collector",
    "treasure-hunter": "tw-treasure_hunter",
    "cooking": "tw-cooking",
}

# TextWorld's generator reads process-wide state; two threads must not borrow it at the same time.
_BORROWED = threading.RLock()


def generate(family: str, settings: Mapping[str, Setting], seed: int, story: Path) -> None:
    """Write ``story`` (``.z8``) and the ``.json`` beside it.

    Raises
    ------
    GameError
        If no game exists for the seed, or TextWorld's compiler refuses it.
    """
    with borrowed_textworld(seed) as textworld:
        game = _first_game(textworld, family, settings, seed)
        try:
            compile_game(game, story)
        except GameError as error:
            _raise_if_full(story.parent, Path(tempfile.gettempdir()))
            what = f"{family} {dict(settings)} seed {seed}"
            raise GameError(f"TextWorld cannot compile {what}: {error}") from error


@contextmanager
def borrowed_textworld(seed: int = 0) -> Iterator[Any]:
    """Import TextWorld and put back whatever it does to global state: random generators, the knowledge base loader.

    Within the context TextWorld does two things the quick way: each knowledge base is loaded once per process, and a
    walkthrough is rehearsed by logic alone.
    """
    with _BORROWED, _kept_random_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter says of every TextWorld game that it does not know it
        textworld = importlib.import_module("textworld")
        loader = importlib.import_module("textworld.generator.data").KnowledgeBase
        original, source = loader.__dict__["load"], textworld.g_rng.seed
        loader.load = staticmethod(functools.partial(_load_once, original.__func__, loader))
        maker, slow = textworld.GameMaker, textworld.GameMaker.set_walkthrough
        maker.set_walkthrough = set_walkthrough
        textworld.g_rng.set_seed(seed)
        try:
            yield textworld
        finally:
            loader.load = original
            maker.set_walkthrough = slow
            textworld.g_rng.set_seed(source)


@functools.cache
def _load_once(
    load: Any,
    loader: Any,
    target_dir: str | None = None,
    logic_path: str | None = None,
    grammar_path: str | None = None,
) -> Any:
    return load(loader, target_dir, logic_path, grammar_path)


@contextmanager
def _kept_random_state() -> Iterator[None]:
    python, legacy = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)


def _first_game(textworld: Any, family: str, settings: Mapping[str, Setting], seed: int) -> Any:
    """Generate from the first seed, of those derived from the given one, that admits a game."""
    make = importlib.import_module("textworld.challenges").CHALLENGES[_CHALLENGES[family]][1]
    for attempt in range(ATTEMPTS):
        options = textworld.GameOptions()
        options.seeds = _textworld_seeds(seed, attempt)
        options.grammar.only_last_action = True  # otherwise the objective spells out the whole walkthrough
        try:
            return make(_challenge_settings(family, settings), options)
        except _generation_failures(textworld):
            continue
    raise GameError(f"{family} {dict(settings)}: no game for seed {seed} in {ATTEMPTS} attempts; take another seed")


def _generation_failures(textworld: Any) -> tuple[type[Exception], ...]:
    # Beside the error meant for it, the generators draw from empty lists when nothing fits.
    return (textworld.generator.QuestGenerationError, ValueError, KeyError, IndexError, AssertionError)


def _textworld_seeds(seed: int, attempt: int) -> dict[str, int]:
    """Derive the four seeds that TextWorld wants; no two (seed, attempt) pairs share them."""
    words = np.random.SeedSequence([seed, attempt]).generate_state(4)
    return dict(zip(("map", "objects", "quest", "grammar"), map(int, words), strict=True))


def _challenge_settings(family: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    if family != "cooking":
        return dict(settings)
    split = settings["split"]
    return {**settings, "split": None if split == "all" else split, "recipe_seed": 0}


def _raise_if_full(*folders: Path) -> None:
    """Tell a full disk from a faulty game: the compiler only says that it failed."""
    for folder in folders:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 1_000_000)
            probe.flush()
            os.fsync(probe.fileno())
