"""Games are prepared in parallel processes that leave no unfinished games and no processes behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedoel.games.families import content_of
from fedoel.games.prepare import prepare
from fedoel.games.textworld.compiled import is_compiled
from fedoel.protocol.errors import ConfigError, GameError
from fedoel.protocol.play import GameSpec

COIN = GameSpec.parse("coin-collector level=102 turns=6")
LONGER = GameSpec.parse("coin-collector level=102 turns=60")
ENDLESS = """
import sys
from pathlib import Path
from fedoel.games.prepare import prepare
from fedoel.protocol.play import GameSpec
spec = GameSpec.parse("coin-collector level=102 turns=6")
if __name__ == "__main__":
    try:
        games = [(spec, seed) for seed in range(999)]
        prepare(games, Path(sys.argv[1]), 2, lambda done, total: print(done, flush=True))
    except KeyboardInterrupt:
        print("interrupted", flush=True)
"""


def test_missing_games_are_prepared_once(cache: Path) -> None:
    calls: list[tuple[int, int]] = []
    games = [(COIN, 3), (COIN, 40), (LONGER, 40), (COIN, 40), (COIN, 41)]
    assert prepare(games, cache, progress=lambda done, total: calls.append((done, total))) == 3
    assert calls == [(1, 3), (2, 3), (3, 3)]
    assert all(is_compiled("coin-collector", content_of(COIN), seed, cache) for seed in (3, 40, 41))


def test_no_games_are_prepared_at_once(cache: Path) -> None:
    assert prepare([], cache) == 0


def test_cached_games_start_no_process(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    games = [(COIN, 3), (COIN, 40)]
    prepare(games, cache)
    monkeypatch.setattr("fedoel.games.prepare._Worker", None)
    calls: list[tuple[int, int]] = []
    assert prepare(games, cache, progress=lambda done, total: calls.append((done, total))) == 2
    assert calls == [(1, 2), (2, 2)]


@pytest.mark.parametrize(("games", "processes"), [(1, 1), (8, 1), (9, 2), (40, 2)])
def test_a_process_is_started_for_every_eight_games(
    games: int, processes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[Path] = []

    class Worker:
        def __init__(self, cache: Path) -> None:
            started.append(cache)

        def prepare(self, spec: GameSpec, seed: int) -> None: ...
        def stop(self) -> None: ...

    monkeypatch.setattr("fedoel.games.prepare._Worker", Worker)
    assert prepare([(COIN, seed) for seed in range(games)], tmp_path) == games
    assert len(started) == processes


def test_all_games_are_checked_before_the_first_is_prepared(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="unknown game family"):
        prepare([(COIN, 1), (GameSpec("chess", (), 3), 1)], tmp_path)
    with pytest.raises(ConfigError, match="at least one process"):
        prepare([(COIN, 1)], tmp_path, processes=0)
    assert list(tmp_path.iterdir()) == []


def test_errors_of_a_worker_are_raised(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(GameError, match="seed 1: cannot keep games"):
        prepare([(COIN, 1)], tmp_path / "file")


def test_an_interrupt_leaves_no_unfinished_games_and_no_processes(tmp_path: Path) -> None:
    parent = subprocess.Popen(
        [sys.executable, "-c", ENDLESS, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert parent.stdout is not None
    assert parent.stdout.readline().strip() == "1"
    os.killpg(parent.pid, signal.SIGINT)
    rest, _ = parent.communicate(timeout=30)
    assert rest.splitlines()[-1] == "interrupted"
    deadline = time.monotonic() + 10
    while _group_lives(parent.pid) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not _group_lives(parent.pid)
    folders = list((tmp_path / "games" / "coin-collector").iterdir())
    assert folders and all({file.name for file in folder.iterdir()} == {"game.z8", "game.json"} for folder in folders)


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True
