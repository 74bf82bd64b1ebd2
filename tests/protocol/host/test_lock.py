"""One owner of a folder: another process is refused while the owner lives, and never because of one that has died."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.host.lock import in_turn, one_owner, owner

OWNER = """\
import sys, time
from pathlib import Path
from fedoel.protocol.host.lock import one_owner
with one_owner(Path(sys.argv[1]), "runs here"):
    print("owns it", flush=True)
    time.sleep(600)
"""
COUNT = """\
import sys
from pathlib import Path
from fedoel.protocol.host.lock import in_turn
path = Path(sys.argv[1])
for _ in range(200):
    with in_turn(path.with_suffix(".lock")):
        path.write_text(str(int(path.read_text()) + 1))
"""


def test_an_owner_that_is_killed_leaves_no_lock(tmp_path: Path) -> None:
    lock = tmp_path / "new" / "run.lock"
    assert owner(lock) == ""
    with subprocess.Popen([sys.executable, "-c", OWNER, str(lock)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "owns it\n"
        assert owner(lock) == f"process {process.pid}"
        with (
            pytest.raises(ConfigError, match=f"^process {process.pid} runs here: stop it$"),
            one_owner(lock, "runs here: stop it"),
        ):
            pass
        process.kill()
    assert owner(lock) == ""
    with one_owner(lock, "runs here"):
        pass
    assert lock.read_text() == ""


def test_an_owner_on_another_host_is_named_with_it(tmp_path: Path) -> None:
    lock = tmp_path / "run.lock"
    with one_owner(lock, "runs here"):
        lock.write_text("17 elsewhere")
        assert owner(lock) == "process 17 on elsewhere"
        lock.write_text("")
        assert owner(lock) == "another process"


def test_processes_take_turns(tmp_path: Path) -> None:
    counter = tmp_path / "count"
    counter.write_text("0")
    processes = [subprocess.Popen([sys.executable, "-c", COUNT, str(counter)]) for _ in range(3)]
    assert [process.wait() for process in processes] == [0, 0, 0]
    assert counter.read_text() == "600"


def test_a_folder_that_cannot_be_locked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    with (
        pytest.raises(ConfigError, match=r"cannot be written: .*; choose another folder"),
        one_owner(tmp_path / "file" / "lock", "runs here"),
    ):
        pass

    def none(descriptor: int, kind: int) -> None:
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.flock", none)
    with (
        pytest.raises(ConfigError, match="No locks available; choose a folder on a file system that has locks"),
        in_turn(tmp_path / "lock"),
    ):
        pass
