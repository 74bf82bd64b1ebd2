"""Compiled TextWorld games in the cache: one folder per game, named by a hash of what determines the game.

Processes share the cache. A folder appears in one atomic rename, so a game is either complete or absent, unless the
power fails or a file is damaged later: a file that is not whole is compiled again.
"""

from __future__ import annotations

import errno
import functools
import hashlib
import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from ...protocol.errors import GameError
from ...protocol.host.machine import installed_version
from ...protocol.play import Setting

GENERATOR_VERSION = 1
"""Part of the cache key: increase it when the same family, settings and seed generate a different game."""

STORY = "game.z8"
HEADER, Z_VERSION = 64, 8  # bytes of a story file's header; its first byte


def game_key(family: str, settings: Mapping[str, Setting], seed: int) -> str:
    """Return the cache key of a game, 24 hexadecimal digits: a hash of its inputs and of both generators' versions."""
    content = [family, sorted(settings.items()), seed, _textworld_version(), GENERATOR_VERSION]
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()[:24]


def is_compiled(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> bool:
    """Return whether the cache holds the game."""
    return (_folder(family, settings, seed, cache) / STORY).is_file()


def story_file(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> Path:
    """Return the path of the compiled game; generate and compile the game first if the cache lacks it.

    Raises
    ------
    GameError
        If the game cannot be generated, or the cache cannot be written.
    """
    folder = _folder(family, settings, seed, cache)
    if not _is_whole(folder / STORY):
        from .generate import generate

        with _atomic_folder(folder) as draft:
            generate(family, settings, seed, draft / STORY)
    return folder / STORY


def _is_whole(story: Path) -> bool:
    """Whether a file for version 8 of the Z-machine is there, has the length and the checksum that its header says.

    See sections 1 and 11 of the Z-Machine Standards Document 1.1. What TextWorld says of the game is beside it.
    """
    try:
        data = np.frombuffer(story.read_bytes(), np.uint8)
        json.loads(story.with_suffix(".json").read_bytes())
    except (OSError, ValueError):
        return False
    header = data[:HEADER].tobytes()
    length = 8 * int.from_bytes(header[26:28], "big")
    whole = len(header) == HEADER and header[0] == Z_VERSION and HEADER <= length <= len(data)
    return whole and int(data[HEADER:length].sum(dtype=np.uint64)) % 2**16 == int.from_bytes(header[28:30], "big")


def _folder(family: str, settings: Mapping[str, Setting], seed: int, cache: Path) -> Path:
    return cache / "games" / family / game_key(family, settings, seed)


@contextmanager
def _atomic_folder(folder: Path) -> Iterator[Path]:
    """Yield a temporary folder that is renamed to `folder` on success and removed on any error."""
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder.parent, prefix=".draft-") as temporary:
            draft = Path(temporary) / "game"
            draft.mkdir()
            yield draft
            _publish(draft, folder)
    except OSError as error:
        raise GameError(_explanation(error, folder)) from error


def _publish(draft: Path, folder: Path) -> None:
    try:
        draft.rename(folder)
    except OSError:
        # Another process may have published the same game first: keep that one. A folder without a whole story file
        # is damaged, or the remains of an interrupted clean-up: replace it.
        if not _is_whole(folder / STORY):
            shutil.rmtree(folder, ignore_errors=True)
            draft.rename(folder)


def _explanation(error: OSError, folder: Path) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return (
            f"no space left for games in {folder.parent} (or to compile them in {tempfile.gettempdir()}):"
            " free some, or set FEDOEL_CACHE or TMPDIR to another folder"
        )
    return f"cannot keep games in {folder.parent}: {error}; set FEDOEL_CACHE to a folder that can be written"


@functools.cache
def _textworld_version() -> str:
    if not (found := installed_version("textworld")):
        raise GameError(
            "this game needs TextWorld, which is not installed: 'pip install textworld' (Linux x86-64, Intel macOS)"
        )
    return found
