"""A fleet as processes on the loopback interface: a server and devices, through the command line that people use."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from fedoel.client.processes import free_ports
from fedoel.simulations.cli import main

DEVICES = ("one", "two", "three", "four")
CALL = [sys.executable, "-c", "import sys; from fedoel.simulations.cli import main; sys.exit(main())"]
RUN = """\
cycles = 2
[games]
families = "frozen-lake size=3 turns=6"
per-client = 4
rehearsal = 8
gate = 8
held-out = 20
[policy]
backend = "tactics"
[strategy]
name = "secure-mean"
min-available-nodes = 3
patience = 3600.0
"""


@dataclass
class Processes:
    """A fleet's folder, and the processes of it that run."""

    folder: Path
    port: int
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    def do(self, *words: str) -> str:
        """Run a command to its end and return what it printed."""
        done = subprocess.run([*CALL, *words], cwd=self.folder, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def start(self, who: str, *words: str) -> None:
        """Start a command, with what it prints in a file."""
        with (self.folder / f"{who}.out").open("wb") as output:
            self.running[who] = subprocess.Popen(
                [*CALL, *words], cwd=self.folder, stdout=output, stderr=output, stdin=subprocess.DEVNULL
            )

    def said(self, who: str) -> str:
        return (self.folder / f"{who}.out").read_text(errors="replace")

    def log(self, device: str) -> str:
        path = self.folder / device / "supernode.log"
        return path.read_text(errors="replace") if path.exists() else ""

    def wait(self, what: Callable[[], object], seconds: float, every: float = 0.2) -> None:
        """Wait for something, for so long and no longer; the logs say why it did not come."""
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                logs = [f"--- {path}\n{path.read_text(errors='replace')[-3000:]}" for path in self._logs()]
                pytest.fail(f"waited {seconds} s in vain\n" + "\n".join(logs))
            time.sleep(every)

    def kill(self, who: str) -> None:
        """SIGKILL a process and everything below it, as when the power goes."""
        process = self.running.pop(who)
        for pid in [process.pid, *below(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def stop(self, who: str) -> int:
        """Ask a process to end, and return its exit code."""
        process = self.running.pop(who)
        process.terminate()
        return process.wait(timeout=30)

    def _logs(self) -> list[Path]:
        return [*self.folder.glob("*.out"), *self.folder.glob("*/s*.log"), *self.folder.glob("server/flower/run.log")]


def below(root: int) -> list[int]:
    """Every process below one, while it lives."""
    lines = subprocess.run(["ps", "-A", "-o", "pid=,ppid="], capture_output=True, text=True, check=True).stdout
    parents = {pid: parent for pid, parent in (map(int, line.split()) for line in lines.splitlines())}
    found = [root]
    for pid in found:
        found += [child for child, parent in parents.items() if parent == pid]
    return found[1:]


@pytest.fixture
def fleet(tmp_path: Path, cache: Path) -> Iterator[Processes]:
    """A server's folder and four devices that have joined; nothing runs yet."""
    [port] = free_ports(1)
    made = Processes(tmp_path, port)
    address = f"127.0.0.1:{port}"
    server = str(tmp_path / "server")
    commands = [["server", "init", server, "--host", "127.0.0.1", "--port", str(port), "--listen", address]]
    for name in DEVICES:
        device, bundle = str(tmp_path / name), str(tmp_path / f"{name}.fleet")
        join = ["device", "join", device]
        commands += [
            [*join, "--name", name, "--ca", f"{server}/ca.crt", "--server", address],
            ["server", "enroll", server, f"{device}/{name}.pub", "--out", bundle],
            [*join, "--bundle", bundle],
        ]
    assert [main(words) for words in commands] == [0] * len(commands)
    (tmp_path / "server" / "run.toml").write_text(RUN)
    yield made
    for who in list(made.running):
        made.kill(who)
