"""Child processes end with their parent, and signals end what a command has started."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from fedoel.protocol.host import processes
from fedoel.protocol.host.processes import as_interrupts, descendants, start_process, stop

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


@pytest.mark.parametrize("name", ["SIGTERM", "SIGHUP"])
def test_signals_that_end_a_process_are_taken_for_an_interrupt(name: str) -> None:
    """Otherwise nothing is cleaned up, and what was started lives on."""
    number = signal.Signals[name]
    before = signal.signal(number, signal.SIG_DFL)
    try:
        with pytest.raises(KeyboardInterrupt), as_interrupts():
            os.kill(os.getpid(), number)
            time.sleep(5)
        assert signal.getsignal(number) is signal.SIG_DFL
    finally:
        signal.signal(number, before)


def test_a_second_interrupt_waits_until_what_was_started_has_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that takes its time to end was left behind by whoever pressed Ctrl-C twice."""
    monkeypatch.setattr(processes, "STOP_SECONDS", 0.5)
    stubborn = (
        "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
    )
    child = start_process([sys.executable, "-c", stubborn], os.environ, tmp_path)
    assert child.stdout and child.stdout.readline()
    before = signal.getsignal(signal.SIGINT)
    again = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    again.start()
    with pytest.raises(KeyboardInterrupt):
        stop(child)
    again.join()
    assert child.poll() == -signal.SIGKILL
    assert signal.getsignal(signal.SIGINT) is before
    with pytest.raises(KeyboardInterrupt):  # the next one comes at once
        os.kill(os.getpid(), signal.SIGINT)
        time.sleep(5)


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
    try:
        with as_interrupts():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_everything_below_a_process_is_ended_without_ps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))  # there is no ps
    environment = {**os.environ, "PATH": "/usr/bin:/bin"}
    parent = start_process(["sh", "-c", "setsid sleep 600 & echo $! > child; wait"], environment, tmp_path)
    deadline = time.monotonic() + 10
    while not ((tmp_path / "child").exists() and (tmp_path / "child").read_text()) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert descendants(parent.pid)
    child = int((tmp_path / "child").read_text())
    stop(parent)
    assert not is_alive(child) and not is_alive(parent.pid)


def test_without_proc_and_ps_nobody_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = processes._parents()
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert ours[os.getpid()] == os.getppid() == processes._parents(tmp_path).get(os.getpid(), os.getppid())
    monkeypatch.setenv("PATH", str(tmp_path))
    assert processes._parents(tmp_path) == {}
