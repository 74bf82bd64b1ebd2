"""The wire between a loopback fleet's devices and its server, and processes that are stopped for a while."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from fedoel.protocol.host.processes import descendants, free_ports
from fedoel.simulations.loopback import LoopbackFleet, Wire


@pytest.fixture
def echo() -> socket.socket:
    """A port of this machine that says again what it is told."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        with suppress(OSError):
            end, _ = listener.accept()
            while data := end.recv(100):
                end.sendall(data)

    threading.Thread(target=serve, daemon=True).start()
    return listener


def test_nothing_gets_through_a_wire_that_is_cut_and_nothing_is_lost_when_it_is_mended(echo: socket.socket) -> None:
    wire = Wire(echo.getsockname()[1])
    with socket.create_connection(("127.0.0.1", wire.port), timeout=10) as end:
        end.sendall(b"one")
        assert end.recv(100) == b"one"
        wire.cut()
        end.sendall(b"two")
        end.settimeout(0.3)
        with pytest.raises(TimeoutError):
            end.recv(100)
        wire.mend()
        end.settimeout(10)
        assert end.recv(100) == b"two"


def test_a_wire_to_a_server_that_is_down_refuses_connections() -> None:
    [port] = free_ports(1)
    wire = Wire(port)
    with pytest.raises(ConnectionError), socket.create_connection(("127.0.0.1", wire.port), timeout=10) as end:
        end.recv(100)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_a_process_that_is_halted_has_not_ended_and_goes_on_with_all_that_belongs_to_it(tmp_path: Path) -> None:
    fleet = LoopbackFleet(tmp_path, ["one"])
    child = "import time; print(flush=True); time.sleep(60)"
    parent = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {child!r}, 'message'])"
    fleet.running["one"] = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE)
    try:
        stdout = fleet.running["one"].stdout
        assert stdout is not None and stdout.readline()  # the child runs
        pids = [fleet.running["one"].pid, *descendants(fleet.running["one"].pid)]
        assert fleet.halt("one", only="sleep(60) message") == 1
        fleet.wait(lambda: states(pids).count("T") == 1, 10)
        assert fleet.halt("one") == len(pids) == 2
        fleet.wait(lambda: states(pids) == ["T", "T"], 10)
        assert not fleet.over("one")
        fleet.go_on("one")
        fleet.wait(lambda: "T" not in states(pids), 10)
    finally:
        fleet.end()


def states(pids: Sequence[int]) -> list[str]:
    """Return the state of each process, as Linux says it: T is one that was stopped."""
    return [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in pids]
