"""Processes of a module that was imported once: separate from one another, and gone with who started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedoel.protocol.host.forked import FORKS, name_of
from fedoel.protocol.host.processes import descendants, environment_of_children

MODULE = """\
import json, os, random, secrets, sys
from pathlib import Path
importer, calls = os.getpid(), 0
def main():
    global calls
    calls += 1
    print("said aloud", flush=True)
    found = {"calls": calls, "inherited": importer != os.getpid(), "stdin": sys.stdin.read(), "name": title()}
    found |= {"random": random.random(), "secret": secrets.token_hex()}
    Path(sys.argv[1]).write_text(json.dumps(found))
    sys.exit(int(sys.argv[2]))
def title():
    return Path("/proc/self/comm").read_text().strip() if sys.platform == "linux" else ""
if __name__ == "__main__":
    main()
"""
SCRIPT = """\
import time
from fedoel.protocol.host import forked
forked.FORKS = {forks}
forked.import_for_processes(["a_module"])
started = [forked.start_module("a_module", [f"{{code}}.json", str(code)], quiet=code == 4) for code in (3, 4)]
while None in [process.poll() for process in started]:
    time.sleep(0.01)
print([process.poll() for process in started])
{then}
"""


def run(folder: Path, forks: bool, then: str = "") -> subprocess.Popen[str]:
    (folder / "a_module.py").write_text(MODULE)
    environment = environment_of_children()
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    command = [sys.executable, "-c", SCRIPT.format(forks=forks, then=then)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize("forks", sorted({False, FORKS}))
def test_processes_share_an_import_and_nothing_else(tmp_path: Path, forks: bool) -> None:
    """Without a fork server, each imports for itself, and all else is the same."""
    said, _ = run(tmp_path, forks).communicate(timeout=120)
    assert said.splitlines() == ["said aloud", "[3, 4]"], "one of the two is quiet, and both have their exit codes"
    one, other = (json.loads((tmp_path / f"{code}.json").read_text()) for code in (3, 4))
    for found in (one, other):
        assert (found["calls"], found["inherited"], found["stdin"]) == (1, forks, "")
        assert not forks or found["name"] == name_of("a_module")
    assert one["random"] != other["random"] and one["secret"] != other["secret"]


@pytest.mark.skipif(not FORKS, reason="no fork server")
def test_nothing_is_left_when_its_owner_is_killed(tmp_path: Path) -> None:
    owner = run(tmp_path, True, "print('there', flush=True); time.sleep(600)")
    assert owner.stdout is not None
    assert [owner.stdout.readline() for _ in range(3)][-1] == "there\n"
    servers = descendants(owner.pid)
    assert servers
    owner.send_signal(signal.SIGKILL)
    owner.wait()
    owner.stdout.close()
    deadline = time.monotonic() + 60
    while any(Path(f"/proc/{pid}").exists() for pid in servers) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not [pid for pid in servers if Path(f"/proc/{pid}").exists()]


def test_a_name_fits_what_the_system_keeps() -> None:
    assert name_of("fedoel.client.device.task") == "fedoel task"
    assert len(name_of("a.module_with_a_longer_name")) == 15
