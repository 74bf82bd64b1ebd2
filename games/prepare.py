"""Make many games ready before anybody plays, in parallel processes that share the cache."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from ..protocol.errors import ConfigError, GameError
from ..protocol.play import GameSpec
from .families import is_prepared, settings_of
from .splits import fingerprint

GameId = tuple[GameSpec, int]

_SLOW_FIRST = ("cooking", "treasure-hunter", "coin-collector")
"""Families by how long a game of theirs takes to make: when slow ones come first, processes finish together."""


def prepare(
    games: Iterable[GameId],
    cache: Path,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Make the games that the cache lacks and return how many there were to look at, doubles left out.

    Parameters
    ----------
    games
        Specifications with seeds; all are checked before the first is made.
    cache
        Folder for compiled games.
    processes
        How many to make at a time.
    progress
        Called with (games looked at, all games) after each.

    Raises
    ------
    ConfigError
        If a game cannot be used, or there is no process to work.
    GameError
        If a game cannot be made. Games made until then stay.
    """
    if processes < 1:
        raise ConfigError(f"preparing games needs at least one process, not {processes}")
    wanted = _distinct(games)
    # Starting a process costs more than making a game: what is there already needs none.
    todo = sorted((game for game in wanted if not is_prepared(*game, cache)), key=_order)
    found = len(wanted) - len(todo)
    for done in range(1, found + 1):
        progress(done, len(wanted))
    workers = [_Worker(cache) for _ in range(min(processes, len(todo)))]
    try:
        _share_out(todo, workers, lambda done, _: progress(found + done, len(wanted)))
    finally:
        for worker in workers:
            worker.stop()
    return len(wanted)


def _distinct(games: Iterable[GameId]) -> list[GameId]:
    # Games of one fingerprint differ in the turn limit at most.
    checked = [(spec, seed) for spec, seed in games if settings_of(spec) is not None]
    return list({fingerprint(spec, seed): (spec, seed) for spec, seed in checked}.values())


def _order(game: GameId) -> int:
    family = game[0].family
    return _SLOW_FIRST.index(family) if family in _SLOW_FIRST else len(_SLOW_FIRST)


def _share_out(todo: list[GameId], workers: list[_Worker], progress: Callable[[int, int], None]) -> None:
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def make(game: GameId) -> None:
        worker = idle.get()
        try:
            worker.make(*game)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(max(1, len(workers)))
    try:
        for done, future in enumerate(as_completed([pool.submit(make, game) for game in todo]), start=1):
            future.result()
            progress(done, len(todo))
    except BaseException:
        # Nothing more is begun; killing the workers ends the waiting of the threads.
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()
        raise
    finally:
        pool.shutdown()


class _Worker:
    """A process of its own rather than one of `multiprocessing`, which would import the caller's main module.

    It ends when its standard input does, so it cannot outlive this process.
    """

    def __init__(self, cache: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", f"{__package__}.worker", str(cache)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )

    def make(self, spec: GameSpec, seed: int) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps([str(spec), seed]) + "\n")
            stdin.flush()
            reply = stdout.readline()
        except (OSError, ValueError):
            reply = ""
        if not reply:
            raise GameError(f"the process that made '{spec}' with seed {seed} died; is there enough memory?")
        if problem := json.loads(reply):
            raise GameError(f"'{spec}' with seed {seed}: {problem}")

    def stop(self) -> None:
        """End the process; it throws away the game that it is making."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()
