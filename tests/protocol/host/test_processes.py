"""Processes of Flower's that fedoel starts."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

PARENT = """\
import os, sys, time
from pathlib import Path
from fedoel.protocol.host.processes import start_process
process = start_process(["sleep", "600"], os.environ, Path(sys.argv[1]))
print(process.pid, flush=True)
time.sleep(600)
"""


def lives(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a child that its parent has died")
def test_what_was_started_ends_with_who_started_it_also_by_a_kill(tmp_path: Path) -> None:
    """A SuperLink that outlives its `server start` holds the port; a SuperNode keeps its own device out."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, str(tmp_path)], stdout=subprocess.PIPE, env=os.environ)
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert lives(child)
    parent.kill()
    parent.wait()
    deadline = time.monotonic() + 10
    while lives(child) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not lives(child)
