"""Where compiled games are kept: one folder per game, named by its content and shared by processes."""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from ..protocol.config import RunConfig
from ..protocol.errors import GameError
from ..protocol.play import Setting

GENERATOR_VERSION = 1
"""Raise it when the same family, settings and seed give another game than before."""

STORY = "game.z8"


def default_cache() -> Path:
    """Return ``$FEDOEL_CACHE``, or ``~/.cache/fedoel`` when that is not set."""
    return Path(os.environ.get("FEDOEL_CACHE") or Path.home() / ".cache" / "fedoel")


def cache_folder(config: RunConfig) -> Path:
    """Return the folder of a run for compiled games and converted models: its own, or the user's."""
    return Path(config.cache).expanduser() if config.cache else default_cache()


def game_key(family: str, settings: Mapping[str, Setting], seed: int) -> str:
    """Name a game by what determines it, TextWorld's version and ours included."""
    content = [family, sorted(settings.items()), seed, _textworld_version(), GENERATOR_VERSION]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def is_ready(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    """Return whether a game is in the cache."""
    return (_folder(family, settings, seed, cache) / STORY).is_file()


def game_file(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> Path:
    """Return the compiled game, made first if the cache does not hold it.

    Raises
    ------
    GameError
        If the game cannot be generated, or the cache cannot be written.
    """
    folder = _folder(family, settings, seed, cache)
    if not (folder / STORY).is_file():
        from .generate import generate

        with _writing(folder) as draft:
            generate(family, settings, seed, draft / STORY)
    return folder / STORY


def _folder(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> Path:
    return cache / "games" / family / game_key(family, settings, seed)


@contextmanager
def _writing(folder: Path) -> Iterator[Path]:
    """Give a folder to write to that becomes `folder` in one step, or vanishes if anything goes wrong."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".draft-") as temporary:
            draft = Path(temporary) / "game"
            draft.mkdir()
            yield draft
            _publish(draft, folder)
    except OSError as error:
        raise GameError(_explain(error, folder)) from error


def _publish(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        # Another process made the same game in the meantime: theirs is as good as ours. A folder without a story
        # is what somebody's clean-up left behind.
        if not (folder / STORY).is_file():
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)


def _explain(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left for games in {folder.parent} (or to compile them in {tempfile.gettempdir()}):"
            " free some, or set FEDOEL_CACHE or TMPDIR to another folder"
        )
    return f"cannot keep games in {folder.parent}: {error}; set FEDOEL_CACHE to a folder that can be written"


@functools.cache
def _textworld_version() -> str:
    try:
        return version("textworld")
    except PackageNotFoundError as error:
        raise GameError(
            "this game needs TextWorld, which is not installed: 'pip install textworld' (Linux x86-64, Intel macOS)"
        ) from error
