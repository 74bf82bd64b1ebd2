"""Prepare many games before play starts, in parallel processes that share the cache.

A process is this module, run as a program. By hand:
``echo '["coin-collector level=102 turns=6", 7]' | python -m fedoel.games.prepare CACHE``
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from queue import SimpleQueue

from ..protocol.errors import ConfigError, FedoelError, GameError
from ..protocol.host.processes import environment_of_children
from ..protocol.play import GameId, GameSpec
from .families import is_prepared, prepare_game, settings_of
from .splits import fingerprint

# Families with fast preparation last: starting with the slowest makes all processes finish at about one time.
_SLOWNESS = {"cooking": 0, "treasure-hunter": 1, "coin-collector": 2}
_WORTH_A_PROCESS = 8  # games: it starts in the time of five to nine; idle cores would be done earlier with more


def prepare(
    games: Iterable[GameId],
    cache: Path,
    processes: int = 2,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Prepare the games that the cache lacks.

    Parameters
    ----------
    games
        Specifications with seeds; all are checked before the first is prepared.
    cache
        Folder for compiled games.
    processes
        Most games to prepare at a time; a few games have fewer processes.
    progress
        Called with (games done, all games) after each game.

    Returns
    -------
    int
        Number of distinct games, those included that the cache held before.

    Raises
    ------
    ConfigError
        If a specification is invalid, or `processes` is less than one.
    GameError
        If a game cannot be prepared. Games prepared before it stay in the cache.
    """
    if processes < 1:
        raise ConfigError(f"preparing games needs at least one process, not {processes}")
    checked = [(spec, seed) for spec, seed in games if settings_of(spec) is not None]
    # Games with one fingerprint have the same content; they differ at most in turn limit and wording.
    distinct = {fingerprint(spec, seed): (spec, seed) for spec, seed in checked}.values()
    # Starting a process takes longer than preparing a game: start none for games that the cache holds.
    missing = [game for game in distinct if not is_prepared(*game, cache)]
    missing.sort(key=lambda game: _SLOWNESS.get(game[0].family, len(_SLOWNESS)))
    cached = len(distinct) - len(missing)
    for done in range(1, cached + 1):
        progress(done, len(distinct))
    workers = [_Worker(cache) for _ in range(min(processes, -(-len(missing) // _WORTH_A_PROCESS)))]
    try:
        _distribute(missing, workers, lambda done: progress(cached + done, len(distinct)))
    finally:
        for worker in workers:
            worker.stop()
    return len(distinct)


def _distribute(games: list[GameId], workers: list[_Worker], progress: Callable[[int], None]) -> None:
    idle: SimpleQueue[_Worker] = SimpleQueue()
    for worker in workers:
        idle.put(worker)

    def prepare_one(game: GameId) -> None:
        worker = idle.get()
        try:
            worker.prepare(*game)
        finally:
            idle.put(worker)

    pool = ThreadPoolExecutor(max(1, len(workers)))
    try:
        for done, future in enumerate(as_completed([pool.submit(prepare_one, game) for game in games]), start=1):
            future.result()
            progress(done)
    except BaseException:
        # Start no further game; stopping the workers unblocks the threads that wait for their replies.
        pool.shutdown(wait=False, cancel_futures=True)
        for worker in workers:
            worker.stop()
        raise
    finally:
        pool.shutdown()


class _Worker:
    """A process that runs `main`. `multiprocessing` would import the caller's main module into it.

    It ends when its standard input is closed, so it cannot outlive this process.
    """

    def __init__(self, cache: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", f"{__package__}.prepare", str(cache)],  # not from the working folder first
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment_of_children(),
        )

    def prepare(self, spec: GameSpec, seed: int) -> None:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None
        try:
            stdin.write(json.dumps([str(spec), seed]) + "\n")
            stdin.flush()
            reply = stdout.readline()
        except (OSError, ValueError):
            reply = ""
        if not reply:
            raise GameError(f"the process that prepared '{spec}' with seed {seed} died; is there enough memory?")
        if problem := json.loads(reply):
            raise GameError(f"'{spec}' with seed {seed}: {problem}")

    def stop(self) -> None:
        """End the process; it discards the game that it is preparing."""
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait()


def main(cache: Path) -> None:
    """Answer each input line, a JSON array ``[specification, seed]``, with a line: null, or the error message."""
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(1))  # unwinds the stack: removes an unfinished game
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent handles it, and sends SIGTERM
    # Reserve standard output for replies: what TextWorld prints goes to standard error.
    with os.fdopen(os.dup(1), "w") as replies:
        os.dup2(2, 1)
        for line in sys.stdin:
            replies.write(json.dumps(_error_of(line, cache)) + "\n")
            replies.flush()


def _error_of(line: str, cache: Path) -> str | None:
    game, seed = json.loads(line)
    try:
        prepare_game(GameSpec.parse(game), seed, cache)
    except FedoelError as error:
        return str(error)
    return None


if __name__ == "__main__":
    main(Path(sys.argv[1]))
