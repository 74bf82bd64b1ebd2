"""Machines of a test, each in a network, mount and process namespace of its own, on one bridge.

They have addresses of 10.83.0.0/24, no route to anywhere else, and no link to the network of the machine that runs the
test. Every namespace ends with its first process, which the kernel kills when the test's process dies: nothing is left,
whatever happens.
"""

from __future__ import annotations

import ctypes
import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from fedoel.protocol.host.processes import STOP_SECONDS, descendants, start_process

T = TypeVar("T")
TOOLS = ("ip", "mount", "nsenter", "unshare")
UNSHARE = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc"]
NETWORK, SWITCH = "10.83.0.{}", "switch"
CLONE_NEWNET, LISTENING = 0x40000000, "0A"  # setns(2); the state of a socket in /proc/net/tcp
# Leaves the named parts of a folder in it, and hides all others from who is in the mount namespace.
SHOW = """\
set -e; folder=$1; aside=$2; shift 2
for name; do mkdir -p "$aside/$name"; mount --bind "$folder/$name" "$aside/$name"; done
mount -t tmpfs -o mode=755 tmpfs "$folder"
for name; do mkdir "$folder/$name"; mount --move "$aside/$name" "$folder/$name"; done
"""


class NoNamespaces(Exception):
    """The machine that runs the test allows no namespaces; the text says why."""


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of a test.

    Parameters
    ----------
    name
        Of the machine.
    address
        On the bridge.
    first
        Process id of its first process, as seen from outside.
    """

    name: str
    address: str
    first: int

    @property
    def enter(self) -> list[str]:
        """Words in front of a command that is to run on this machine."""
        return ["nsenter", "--target", str(self.first), "--net", "--mount", "--pid", "--"]

    def show(self, folder: Path, names: Sequence[str], aside: Path) -> None:
        """Hide a folder's content on this machine, but for the named folders in it; `aside` is an empty folder."""
        _done([*self.enter, "sh", "-c", SHOW, "sh", str(folder), str(aside), *names])

    def mount(self, source: Path, target: Path) -> None:
        """Put a file in the place of another one on this machine."""
        _done([*self.enter, "mount", "--bind", str(source), str(target)])

    def path(self, path: Path) -> Path:
        """Return the path by which the test reaches what has this absolute path on the machine."""
        return Path(f"/proc/{self.first}/root") / path.relative_to("/")

    def inside(self, work: Callable[[], T]) -> T:
        """Call a function in a thread that is in this machine's network, as are the sockets and threads it makes."""

        def there() -> T:
            with open(f"/proc/{self.first}/ns/net", "rb") as network:
                if ctypes.CDLL(None, use_errno=True).setns(network.fileno(), CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), f"the network of {self.name} cannot be entered")
            return work()

        with ThreadPoolExecutor(1) as thread:
            return thread.submit(there).result()

    def listening(self) -> set[int]:
        """Ports at which something listens on this machine, at whatever address."""
        found = set[int]()
        for version in ("tcp", "tcp6"):
            lines = Path(f"/proc/{self.first}/net/{version}").read_text().splitlines()[1:]
            rows = [line.split() for line in lines]
            found |= {int(row[1].rpartition(":")[2], 16) for row in rows if row[3] == LISTENING}
        return found

    def has(self, pid: int) -> bool:
        """Whether a process is in this machine's namespaces, all three."""
        kinds = ("net", "mnt", "pid")
        return all(
            os.readlink(f"/proc/{pid}/ns/{kind}") == os.readlink(f"/proc/{self.first}/ns/{kind}") for kind in kinds
        )


@contextmanager
def machines(names: Sequence[str], folder: Path) -> Iterator[Mapping[str, Machine]]:
    """Make machines that are on one bridge, and end all that runs on them behind the block.

    Parameters
    ----------
    folder
        For what the tools print.

    Raises
    ------
    NoNamespaces
        If this machine does not allow them.
    """
    if missing := [tool for tool in TOOLS if not shutil.which(tool)]:
        raise NoNamespaces(f"there is no {', '.join(missing)} here")
    if os.geteuid():
        raise NoNamespaces("only root makes them")
    with ExitStack() as running:
        try:
            switch = running.enter_context(_machine(SWITCH, "", folder))
            made = [
                running.enter_context(_machine(name, NETWORK.format(number), folder))
                for number, name in enumerate(names, start=1)
            ]
            # Only the networks are entered: a number of a process means another one in another process namespace.
            ports = "".join(f"link add port{one.first} type veth peer name eth0 netns {one.first}\n" for one in made)
            ports += "".join(f"link set port{one.first} master bridge up\n" for one in made)
            _configure(switch, f"link add bridge type bridge\nlink set bridge up\n{ports}")
            for one in made:
                _configure(one, f"link set lo up\naddress add {one.address}/24 dev eth0\nlink set eth0 up\n")
        except (OSError, subprocess.CalledProcessError) as error:
            said = getattr(error, "stderr", "") or str(error)
            raise NoNamespaces(f"they cannot be made here: {said.strip()}") from error
        yield {one.name: one for one in made}


@contextmanager
def _machine(name: str, address: str, folder: Path) -> Iterator[Machine]:
    """Run the first process of a machine, and kill whatever runs on it behind the block."""
    command = [*UNSHARE, "sh", "-c", "echo ready; exec sleep infinity"]
    process = start_process(command, os.environ, folder)
    assert process.stdout is not None
    try:
        said = process.stdout.readline().decode()
        if said != "ready\n":
            raise OSError(said or "unshare has failed")
        [first] = descendants(process.pid)
        yield Machine(name, address, first)
    finally:
        # The first process of a process namespace takes all others with it, and `unshare` ends when they have ended.
        for pid in descendants(process.pid):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.stdout.close()
        process.wait(STOP_SECONDS)


def _configure(machine: Machine, lines: str) -> None:
    _done(["nsenter", "--target", str(machine.first), "--net", "--", "ip", "-batch", "-"], lines)


def _done(command: Sequence[str], text: str = "") -> None:
    subprocess.run(command, input=text, capture_output=True, text=True, check=True)
