"""Child processes end with their parent."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedoel.protocol.host.processes import start_process

PARENT = """\
import os, sys, time
from pathlib import Path
from fedoel.protocol.host.processes import start_process
process = start_process(["sleep", "600"], os.environ, Path(sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


def test_what_a_child_writes_is_its_owners_alone(tmp_path: Path) -> None:
    """As SuperLink and SuperNode, whose databases and installed apps would be readable otherwise."""
    assert start_process(["sh", "-c", "mkdir made; echo one > made/file"], os.environ, tmp_path).wait() == 0
    made = tmp_path / "made"
    assert [path.stat().st_mode & 0o777 for path in (made, made / "file")] == [0o700, 0o600]


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_a_child_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    """A SuperLink that outlived `server start` would keep its port, a SuperNode its node key."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert is_alive(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while is_alive(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not is_alive(child)
