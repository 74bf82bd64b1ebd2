"""A real fleet on one machine, for tests and drills: a server and devices as processes, over TLS on loopback.

What is simulated is the misfortune: processes lose their power, and the network between them is cut.
"""

from __future__ import annotations

import io
import os
import signal
import socket
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import redirect_stdout, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Event, Thread

from ..client.device.folder import DeviceFolder
from ..client.device.join import join
from ..protocol.errors import FedoelError
from ..protocol.host.processes import descendants, free_ports, tail
from ..server.operate.folder import ServerFolder, Settings
from ..server.operate.setup import enroll, init

CALL = [sys.executable, "-c", "import sys; from fedoel.cli.main import main; sys.exit(main())"]
FLOWERS_HEARTBEAT, SHORTEST_HEARTBEAT = 30, 10  # seconds; Flower's SuperLink accepts none that is shorter
# A SuperNode says itself how often it will be heard of, and has no option for it. Elsewhere the same number is the time
# in which a process for a message has to have started: that stays.
OFTENER = """\
import sys
if any(word.endswith("flower-supernode") for word in sys.orig_argv):
    from flwr.supercore import heartbeat
    from flwr.supernode import fleet_http_connection
    heartbeat.HEARTBEAT_DEFAULT_INTERVAL = fleet_http_connection.HEARTBEAT_DEFAULT_INTERVAL = {seconds}
"""
NOTES = "FEDOEL_NOTES"  # environment variable with the folder for notes
STOP_SECONDS, COMMAND_SECONDS = 30.0, 300.0


class Wire:
    """A connection to a port of this machine that can be cut: nothing gets through until it is mended.

    Connections stay open in between, as they do when a cable is pulled.
    """

    def __init__(self, target: int) -> None:
        self._target, self._whole = target, Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._whole.set()
        Thread(target=self._accept, daemon=True).start()

    def lead_to(self, port: int) -> None:
        """Connect whoever comes from now on with another port."""
        self._target = port

    def cut(self) -> None:
        """Let nothing through."""
        self._whole.clear()

    def mend(self) -> None:
        """Let everything through again."""
        self._whole.set()

    def _accept(self) -> None:
        while True:
            near, _ = self._listener.accept()
            Thread(target=self._connect, args=(near,), daemon=True).start()

    def _connect(self, near: socket.socket) -> None:
        self._whole.wait()
        try:
            far = socket.create_connection(("127.0.0.1", self._target))
        except OSError:  # the server is down: refuse, as its own port would
            near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            near.close()
            return
        for source, sink in ((near, far), (far, near)):
            Thread(target=self._pump, args=(source, sink), daemon=True).start()

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._whole.wait()
                sink.sendall(data)
        for end in (source, sink):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


@dataclass
class LoopbackFleet:
    """A fleet's folder, and the processes of it that run.

    Parameters
    ----------
    folder
        Holds ``server`` and a folder for each device.
    names
        Of the devices.
    heartbeat
        Seconds between two signs of life that a device promises. Flower takes it for alive for twice as long.
    server_path
        Folder in front of the PYTHONPATH of the server's processes, and of no others.
    server_settings
        Of the server, where it does not listen on loopback and devices come over no wire.
    within
        Words in front of the command that starts a server or device, by its name, such as those that enter a namespace.
    """

    folder: Path
    names: Sequence[str]
    heartbeat: int = FLOWERS_HEARTBEAT
    server_path: str = ""
    server_settings: Settings | None = None
    within: Mapping[str, Sequence[str]] = field(default_factory=dict)
    running: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    _ended: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._port = free_ports(1)[0]
        self.wire = Wire(self._port)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / "sitecustomize.py").write_text(OFTENER.format(seconds=self.heartbeat), encoding="utf-8")

    @property
    def port(self) -> int:
        """The port on which the SuperLink listens; devices reach it over the wire."""
        return self._port

    @property
    def server(self) -> Path:
        """The server's folder."""
        return self.folder / "server"

    @property
    def notes(self) -> Path:
        """Where `fedoel.simulations.loopback_sum` notes what devices were asked."""
        return self.folder / "notes"

    def make(self, run: str, settings: str | None = None) -> None:
        """Make the server's folder with this run, and let every device join, as the commands do.

        Parameters
        ----------
        settings
            What `device.toml` of every device says; None for what `join` writes.
        """
        of_server = self.server_settings or Settings(("127.0.0.1",), self.wire.port, f"127.0.0.1:{self._port}")
        near, server = of_server.address, ServerFolder(self.server)
        with redirect_stdout(io.StringIO()):
            init(server, of_server)
            (self.server / "run.toml").write_text(run, encoding="utf-8")
            for name in self.names:
                device, bundle = DeviceFolder(self.folder / name), self.folder / f"{name}.fleet"
                join(device, name, server=near, ca=server.ca_certificate)
                enroll(server, device.path / f"{name}.pub", out=bundle)
                join(device, bundle=bundle)
                if settings is not None:
                    device.settings.write_text(settings, encoding="utf-8")

    def do(self, *words: str) -> str:
        """Run a command to its end and return what it printed.

        Raises
        ------
        FedoelError
            If it fails.
        """
        done = subprocess.run(
            [*CALL, *words], cwd=self.folder, env=self._environment(words[0]), capture_output=True, text=True,
            timeout=COMMAND_SECONDS, check=False,
        )  # fmt: skip
        if done.returncode:
            raise FedoelError(f"`fedoel {' '.join(words)}` failed:\n{done.stdout}{done.stderr}")
        return done.stdout

    def start(self, who: str) -> None:
        """Start the server, or a device by its name."""
        kind = "server" if who == "server" else "device"
        with (self.folder / f"{who}.out").open("ab") as output:
            self.running[who] = subprocess.Popen(
                [*self.within.get(who, ()), *CALL, kind, "start", str(self.folder / who)],
                cwd=self.folder, env=self._environment(kind), stdout=output, stderr=output, stdin=subprocess.DEVNULL,
            )  # fmt: skip

    def tend(self) -> None:
        """Do what a device's service does: start again who was killed or gave up, once Flower has forgotten it."""
        now = time.monotonic()
        for name in self.names:
            if name in self.running and not self.over(name):
                continue
            self.running.pop(name, None)
            if now - self._ended.setdefault(name, now) > 2 * self.heartbeat:
                self.start(name)
                del self._ended[name]

    def said(self, who: str) -> str:
        """What a process has printed."""
        return _text(self.folder / f"{who}.out")

    def log(self, device: str) -> str:
        """What a device's SuperNode has logged."""
        return _text(self.folder / device / "supernode.log")

    def over(self, who: str) -> bool:
        """Whether a process has ended by itself."""
        return self.running[who].poll() is not None

    def wait(self, what: Callable[[], object], seconds: float, every: float = 0.1) -> None:
        """Wait for something, for so long and no longer.

        Raises
        ------
        FedoelError
            If it does not come, with the ends of the logs.
        """
        deadline = time.monotonic() + seconds
        while not what():
            if time.monotonic() > deadline:
                logs = "\n".join(f"--- {path}\n{tail(path)}" for path in self._logs())
                raise FedoelError(f"waited {seconds:.0f} s in vain\n{logs}")
            time.sleep(every)

    def kill(self, who: str) -> None:
        """SIGKILL a process and everything below it, as when the power goes."""
        process = self.running.pop(who)
        for pid in [process.pid, *descendants(process.pid)]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()

    def halt(self, who: str, only: str = "") -> int:
        """SIGSTOP a process and everything below it, as when a machine sleeps; return how many processes that are.

        Parameters
        ----------
        only
            Stop only the processes with this among their arguments, or as their name; what else belongs to it goes on.
        """
        pids = self._halted(who, only)
        for pid in pids:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
        return len(pids)

    def go_on(self, who: str) -> None:
        """Let a process that was halted go on."""
        for pid in self._halted(who, ""):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def _halted(self, who: str, only: str) -> list[int]:
        pids = [self.running[who].pid, *descendants(self.running[who].pid)]
        return [pid for pid in pids if not only or only in arguments_of(pid) or only == title_of(pid)]

    def stop(self, who: str) -> int:
        """Ask a process to end, and return its exit code."""
        process = self.running.pop(who)
        process.terminate()
        return process.wait(timeout=STOP_SECONDS)

    def end(self) -> None:
        """End whatever still runs."""
        self.wire.mend()
        for who in list(self.running):
            self.kill(who)

    def _environment(self, kind: str) -> dict[str, str]:
        paths = [self.server_path if kind == "server" else "", str(self.folder), os.environ.get("PYTHONPATH", "")]
        paths = list(filter(None, paths))
        return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), NOTES: str(self.notes)}

    def _logs(self) -> list[Path]:
        return [*self.folder.glob("*.out"), *self.folder.glob("*/s*.log"), *self.folder.glob("server/flower/run.log")]


def arguments_of(pid: int) -> str:
    """Return the arguments of a process as one text; empty for one that is over (Linux only)."""
    return _text(Path(f"/proc/{pid}/cmdline")).replace("\0", " ")


def title_of(pid: int) -> str:
    """Return the name of a process in the system's list; empty for one that is over (Linux only)."""
    return _text(Path(f"/proc/{pid}/comm")).strip()


def _text(path: Path) -> str:
    with suppress(OSError):
        return path.read_text(encoding="utf-8", errors="replace")
    return ""
