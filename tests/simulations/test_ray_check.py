"""What keeps Ray from starting is said before a run has a folder, instead of in a log of Ray's."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from fedoel.cli.main import main
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.host.processes import free_ports
from fedoel.simulations.ray_engine import LONGEST_SOCKET, SOCKET, check_ray


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
    monkeypatch.setenv("RAY_ADDRESS", "auto")
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
