"""Generate a TextWorld game from a seed and compile it, leaving process-wide state unchanged."""

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

from ...protocol.errors import GameError
from ...protocol.play import Setting
from .inform import compile_game
from .walkthrough import set_walkthrough

ATTEMPTS = 50
"""Generation fails for some seeds (e.g. treasure hunter from level 9 on): so many derived seeds are tried in turn."""

_CHALLENGES = {
    "coin-collector": "tw-coin_collector",
    "treasure-hunter": "tw-treasure_hunter",
    "cooking": "tw-cooking",
}

# TextWorld's generator uses process-wide state; only one thread at a time may use it.
_TEXTWORLD_LOCK = threading.RLock()


def generate(family: str, settings: Mapping[str, Setting], seed: int, story: Path) -> None:
    """Generate a game and write its story file (``.z8``) and the ``.json`` beside it.

    Raises
    ------
    GameError
        If no derived seed gives a game, or TextWorld's compiler refuses it.
    """
    with borrowed_textworld(seed) as textworld:
        game = _generate_game(textworld, family, settings, seed)
        try:
            compile_game(game, story)
        except GameError as error:
            _raise_if_full(story.parent, Path(tempfile.gettempdir()))
            raise GameError(f"TextWorld cannot compile {family} {dict(settings)} seed {seed}: {error}") from error


@contextmanager
def borrowed_textworld(seed: int = 0) -> Iterator[Any]:
    """Import TextWorld, and on exit restore the global state that it changes: random generators and class attributes.

    Within the context, two slow steps of TextWorld are replaced: each knowledge base is loaded once per process, and
    `set_walkthrough` simulates a walkthrough without compiling the game.
    """
    with _TEXTWORLD_LOCK, _preserved_random_state(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the interpreter warns about every TextWorld game that it is unknown
        textworld = importlib.import_module("textworld")
        knowledge = importlib.import_module("textworld.generator.data").KnowledgeBase
        original_load, original_seed = knowledge.__dict__["load"], textworld.g_rng.seed
        knowledge.load = staticmethod(functools.partial(_load_once, original_load.__func__, knowledge))
        maker, original_walkthrough = textworld.GameMaker, textworld.GameMaker.set_walkthrough
        maker.set_walkthrough = set_walkthrough
        textworld.g_rng.set_seed(seed)
        try:
            yield textworld
        finally:
            knowledge.load = original_load
            maker.set_walkthrough = original_walkthrough
            textworld.g_rng.set_seed(original_seed)


@functools.cache
def _load_once(
    load: Any,
    knowledge: Any,
    target_dir: str | None = None,
    logic_path: str | None = None,
    grammar_path: str | None = None,
) -> Any:
    return load(knowledge, target_dir, logic_path, grammar_path)


@contextmanager
def _preserved_random_state() -> Iterator[None]:
    python_state, numpy_state = random.getstate(), np.random.get_state()
    try:
        yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)


def _generate_game(textworld: Any, family: str, settings: Mapping[str, Setting], seed: int) -> Any:
    """Generate a game from the first derived seed for which generation succeeds."""
    make = importlib.import_module("textworld.challenges").CHALLENGES[_CHALLENGES[family]][1]
    for attempt in range(ATTEMPTS):
        options = textworld.GameOptions()
        options.seeds = _textworld_seeds(seed, attempt)
        options.grammar.only_last_action = True  # otherwise the objective lists the whole walkthrough
        try:
            return make(_challenge_settings(family, settings), options)
        except _generation_failures(textworld):
            continue
    raise GameError(f"{family} {dict(settings)}: no game for seed {seed} in {ATTEMPTS} attempts; take another seed")


def _generation_failures(textworld: Any) -> tuple[type[Exception], ...]:
    # The generators raise QuestGenerationError, but also fail on draws from empty lists when no placement is left.
    return (textworld.generator.QuestGenerationError, ValueError, KeyError, IndexError, AssertionError)


def _textworld_seeds(seed: int, attempt: int) -> dict[str, int]:
    """Derive TextWorld's four seeds, distinct for every pair (seed, attempt)."""
    words = np.random.SeedSequence([seed, attempt]).generate_state(4)
    return dict(zip(("map", "objects", "quest", "grammar"), map(int, words), strict=True))


def _challenge_settings(family: str, settings: Mapping[str, Setting]) -> dict[str, object]:
    if family != "cooking":
        return dict(settings)
    split = settings["split"]
    return {**settings, "split": None if split == "all" else split, "recipe_seed": 0}


def _raise_if_full(*folders: Path) -> None:
    """Raise `OSError` if a folder's disk is full; the compiler reports only that it failed."""
    for folder in folders:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"\0" * 1_000_000)
            probe.flush()
            os.fsync(probe.fileno())
