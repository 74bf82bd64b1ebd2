"""The wire between a loopback fleet's devices and its server."""

from __future__ import annotations

import socket
import threading
from contextlib import suppress

import pytest

from fedoel.protocol.host.processes import free_ports
from fedoel.simulations.loopback import Wire


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
