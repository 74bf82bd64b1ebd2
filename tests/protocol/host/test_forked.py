"""Processes of a module that was imported once: separate from one another, and gone with who started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

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
{first}
started = [forked.start_module("a_module", [f"{{code}}.json", str(code)], quiet=code == 4) for code in (3, 4)]
while None in [process.poll() for process in started]:
    time.sleep(0.01)
print([process.poll() for process in started])
{then}
"""
LOSE = """\
import os, signal
from pathlib import Path
from fedoel.protocol.host.processes import descendants
{what}
"""
LOSSES = {
    "its process is killed": "[os.kill(pid, signal.SIGKILL) for pid in descendants(os.getpid())]; time.sleep(1)",
    "its socket is deleted": "[socket.unlink() for socket in Path(os.environ['TMPDIR']).glob('*/listener-*')]",
}
FAILS = """\
import os
from multiprocessing import forkserver
from fedoel.protocol.errors import FedoelError
for _ in range(2):
    forkserver.ensure_running()
    server = forkserver._forkserver._forkserver_pid
    try:
        forked.start_module("a_module", [])
    except FedoelError as error:
        print(error)
    os.waitid(os.P_PID, server, os.WEXITED | os.WNOWAIT)  # it has answered, and has not ended yet
raise SystemExit
"""


def run(folder: Path, forks: bool, then: str = "", first: str = "", **more: str) -> subprocess.Popen[str]:
    if not (folder / "a_module.py").exists():
        (folder / "a_module.py").write_text(MODULE)
    environment = environment_of_children() | more
    environment["PYTHONPATH"] = os.pathsep.join([str(folder), environment["PYTHONPATH"]])
    command = [sys.executable, "-c", SCRIPT.format(forks=forks, then=then, first=first)]
    return subprocess.Popen(command, cwd=folder, env=environment, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def short_tmp() -> Iterator[Path]:
    """A folder whose path is short enough for a socket in it, which pytest's own need not be."""
    with TemporaryDirectory() as folder:
        yield Path(folder)


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


@pytest.mark.skipif(not FORKS, reason="no fork server")
@pytest.mark.parametrize("loss", LOSSES)
def test_a_lost_server_costs_no_process(short_tmp: Path, loss: str) -> None:
    first = LOSE.format(what=LOSSES[loss])
    said, _ = run(short_tmp, True, first=first, TMPDIR=str(short_tmp)).communicate(timeout=120)
    assert said.splitlines() == ["said aloud", "[3, 4]"]


@pytest.mark.skipif(not FORKS, reason="no fork server")
def test_where_no_socket_can_be_made_processes_import_for_themselves(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 120)
    long.mkdir()
    said, _ = run(tmp_path, True, TMPDIR=str(long)).communicate(timeout=120)
    assert said.splitlines() == ["said aloud", "[3, 4]"]
    assert not json.loads((tmp_path / "3.json").read_text())["inherited"]


@pytest.mark.skipif(not FORKS, reason="no fork server")
def test_a_module_that_ends_the_server_is_said(tmp_path: Path) -> None:
    """The process may have started, so that no second one takes its place."""
    (tmp_path / "a_module.py").write_text("import time; time.sleep(2); raise ValueError('half an update')")
    said, _ = run(tmp_path, True, first=FAILS).communicate(timeout=120)
    assert said.splitlines() == ["what starts the processes of this device has ended; it is started again"] * 2


def test_a_name_fits_what_the_system_keeps() -> None:
    assert name_of("fedoel.client.device.task") == "fedoel task"
    assert len(name_of("a.module_with_a_longer_name")) == 15
