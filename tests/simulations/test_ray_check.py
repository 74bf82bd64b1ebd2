"""What keeps Ray from starting is said before a run has a folder, instead of in a log of Ray's."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import urllib.request
from collections import namedtuple
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from fedoel.cli.main import main
from fedoel.protocol.errors import ConfigError, FedoelError
from fedoel.protocol.host.processes import free_ports, start_process
from fedoel.simulations import ray_engine
from fedoel.simulations.ray_engine import CURRENT_CLUSTER, LONGEST_SOCKET, SOCKET, check_address, check_ray, superlink

Usage = namedtuple("Usage", ["total", "used", "free"])


@pytest.fixture(autouse=True)
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("RAY_TMPDIR", "TMPDIR", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)


def test_a_usual_environment_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    check_ray()
    monkeypatch.setenv("TMPDIR", "/" + "x" * (LONGEST_SOCKET - len(SOCKET) - 1))
    check_ray()
    monkeypatch.setenv("TMPDIR", "/" + "x" * 200)
    monkeypatch.setenv("RAY_TMPDIR", "/tmp")
    check_ray()
    monkeypatch.setenv("RAY_ADDRESS", "local")
    check_ray()


def test_a_folder_with_too_long_a_name_is_refused_before_there_is_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TMPDIR", "/" + "x" * 116)
    with pytest.raises(ConfigError, match=r"TMPDIR .* bytes too long for Ray's sockets: set RAY_TMPDIR"):
        check_ray()
    settings = ["--set", "policy.backend=tactics", "--set", "games.families=frozen-lake size=3 turns=3"]
    out = tmp_path / "run"
    assert main(["simulate", "--engine", "ray", "--out", str(out), *settings]) == 2
    assert "too long for Ray" in capsys.readouterr().err and not out.exists()


def test_a_cluster_that_does_not_answer_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{free_ports(1)[0]}")
    with pytest.raises(ConfigError, match=r"no Ray cluster answers .*: start it, or unset RAY_ADDRESS"):
        check_ray()
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        monkeypatch.setenv("RAY_ADDRESS", f"ray://127.0.0.1:{cluster.getsockname()[1]}")
        check_ray()


def test_a_full_folder_for_temporary_files_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: Usage(10**9, 10**9 - 4096, 4096))
    with pytest.raises(ConfigError, match=r"folder for temporary files '/tmp' has 4.1 kB free, and Ray takes 50.0 MB"):
        check_ray()
    monkeypatch.setenv("RAY_TMPDIR", "/dev")
    with pytest.raises(ConfigError, match=r"RAY_TMPDIR '/dev' has .*: make room there, or set RAY_TMPDIR"):
        check_ray()
    with socket.create_server(("127.0.0.1", 0)) as cluster:  # whose folder is elsewhere
        monkeypatch.setenv("RAY_ADDRESS", f"127.0.0.1:{cluster.getsockname()[1]}")
        check_ray()


@pytest.mark.parametrize(
    "address", ["foo", "10.0.0.1", "10.0.0.1:", ":6379", "head:port", "ray://head", "AUTO", "\x1b[31m"]
)
def test_what_is_no_address_of_a_cluster_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    with pytest.raises(ConfigError, match="no address of a Ray cluster: set it to HOST:PORT, or to 'auto'") as refused:
        check_ray()
    assert str(refused.value).isprintable()


def test_auto_is_the_cluster_that_ray_has_noted_if_it_answers(tmp_path: Path) -> None:
    noted = tmp_path / CURRENT_CLUSTER
    with pytest.raises(ConfigError, match=r"'auto', and `ray start` has started no cluster here .*: start one, set"):
        check_address("auto", noted)
    noted.write_text(f"127.0.0.1:{free_ports(1)[0]}\n")
    with pytest.raises(ConfigError, match=r"'auto', which is '127.0.0.1:\d+', where no Ray cluster answers"):
        check_address("auto", noted)
    with socket.create_server(("127.0.0.1", 0)) as cluster:
        noted.write_text(f"127.0.0.1:{cluster.getsockname()[1]}")
        check_address("auto", noted)


SUPERLINK = """
import http.server, sys
class Health(http.server.BaseHTTPRequestHandler):
    def do_GET(self): self.send_response(200); self.end_headers()
    def log_message(self, *words): pass
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Health).serve_forever()
"""


def test_a_port_that_is_taken_meanwhile_is_not_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    started = list[str]()

    def start(command: list[str], *rest: Any) -> subprocess.Popen[bytes]:
        started.append(command[command.index("--port") + 1])
        return start_process([sys.executable, "-c", SUPERLINK, started[-1]], *rest)

    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        taken, free = other.getsockname()[1], free_ports(2)
        offered = iter([[taken, free[1]], free, [taken, taken], [taken, taken], [taken, taken]])
        monkeypatch.setattr(ray_engine, "free_ports", lambda count: next(offered))
        monkeypatch.setattr(ray_engine, "start_process", start)
        with superlink(tmp_path, 1) as (environment, _):
            assert environment["FLWR_LOCAL_SUPERLINK_HTTP_API_PORT"] == started[1] == str(free[0])
        with pytest.raises(FedoelError, match=r"SuperLink did not start.*(?s:.)*Address already in use"):
            superlink(tmp_path, 1).__enter__()
    assert started[2:] == 3 * [str(taken)]


def test_of_two_runs_at_once_each_has_a_superlink_and_a_ray_of_its_own_that_outlives_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def start(command: list[str], *rest: Any) -> subprocess.Popen[bytes]:
        return start_process([sys.executable, "-c", SUPERLINK, command[command.index("--port") + 1]], *rest)

    def answers(environment: Mapping[str, str]) -> bool:
        url = f"http://127.0.0.1:{environment['FLWR_LOCAL_SUPERLINK_HTTP_API_PORT']}/health"
        with urllib.request.urlopen(url, timeout=10) as reply:
            return bool(reply.status == 200)

    monkeypatch.setattr(ray_engine, "start_process", start)
    homes = [tmp_path / "first", tmp_path / "second"]
    for home in homes:
        home.mkdir()
    with superlink(homes[1], 1) as (second, _):
        with superlink(homes[0], 1) as (first, _):
            assert answers(first) and answers(second)
            assert [one["FLWR_HOME"] for one in (first, second)] == list(map(str, homes))
            apis = ("SUPERLINK_HTTP", "CONTROL")
            assert len({one[f"FLWR_LOCAL_{api}_API_PORT"] for one in (first, second) for api in apis}) == 4
            # Ray notes its newest cluster for all programs of the machine; whoever is told no other joins that.
            assert [one["RAY_ADDRESS"] for one in (first, second)] == ["local", "local"]
        assert answers(second)
