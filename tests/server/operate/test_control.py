"""The SuperLink's control API answers its own machine, and there who brings the owner's secret."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path

import pytest
from flwr.cli import utils
from flwr.common.constant import ACCESS_TOKEN_KEY
from flwr.supercore.error import BearerAuthenticationError
from flwr.superlink import main as main_of_superlink
from flwr.superlink.cli import flower_superlink
from flwr.superlink.dependencies.account import AccountAccessDependency
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Scope

from fedoel.protocol.errors import FedoelError
from fedoel.server.operate import control
from fedoel.server.operate.control import FleetApiOnly, OwnerOnly, WithSecret, bring_secret
from fedoel.server.operate.flower import FLWR, SECRET

OTHER = "192.0.2.7"  # nobody's address (RFC 5737)
WITH_IPV6 = pytest.mark.skipif(not Path("/proc/net/if_inet6").exists(), reason="this machine has no IPv6")


def answer(app: ASGIApp, path: str, client: str | None) -> int:
    """Return the status with which an application answers a request from an address."""
    sent = list[Message]()

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request"}

    scope: Scope = {
        "type": "http", "path": path, "method": "POST", "headers": [], "server": ("127.0.0.1", 9092),
        "client": None if client is None else (client, 4711),
    }  # fmt: skip

    async def call() -> None:
        await app(scope, receive, send)

    asyncio.run(call())
    return int(sent[0]["status"])


def request(*headers: str) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", header.encode()) for header in headers]})


def test_the_secret_opens_and_nothing_else_does() -> None:
    access = AccountAccessDependency(OwnerOnly("s3cret"))
    assert access(request("Bearer s3cret")).account_name
    for refused in ((), ("Bearer s3cre",), ("Bearer s3cret2",), ("Basic s3cret",), ("Bearer s3cret", "Bearer s3cret")):
        with pytest.raises(BearerAuthenticationError):
            access(request(*refused))


@pytest.mark.parametrize(
    ("client", "answered"),
    [
        ("127.0.0.1", 200),
        pytest.param("::1", 200, marks=WITH_IPV6),
        pytest.param("::ffff:127.0.0.1", 200, marks=WITH_IPV6),
        (OTHER, 404),
        ("", 404),
        (None, 404),
    ],
)
def test_other_machines_reach_the_fleet_api_alone(client: str | None, answered: int) -> None:
    """Whatever they know: the secret is asked for behind this."""
    app = FleetApiOnly(PlainTextResponse("answered"))
    for path in ("/v1/control/list-runs", "/v1/runtime/acquire-task", "/health", "/docs", "/v1/fleet", "//v1/fleet/"):
        assert answer(app, path, client) == answered
    for path in ("/v1/fleet/", "/v1/fleet/pull-messages"):
        assert answer(app, path, client) == 200


def test_the_superlink_serves_other_machines_nothing_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a later Flower has no longer what is replaced for it, the SuperLink does not start."""
    served = list[ASGIApp]()

    def serve() -> None:
        served.append(main_of_superlink.create_app())

    serve.__module__ = flower_superlink.__module__
    monkeypatch.setattr(control, "flower_superlink", serve)
    monkeypatch.setattr(sys.modules[serve.__module__], "load_control_authn_plugin", None)  # so that it is put back
    monkeypatch.setattr(main_of_superlink, "create_app", lambda: PlainTextResponse("answered"))
    (tmp_path / "secret").write_text("s3cret")
    monkeypatch.setenv(SECRET, str(tmp_path / "secret"))
    control.superlink()
    [app] = served
    assert (answer(app, "/v1/control/list-runs", OTHER), answer(app, "/v1/fleet/get-run", OTHER)) == (404, 200)
    monkeypatch.delattr(main_of_superlink, "create_app")
    with pytest.raises(FedoelError, match=r"no flwr\.superlink\.main\.create_app"):
        control.superlink()


def test_the_command_brings_the_secret_that_the_environment_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(utils, "load_cli_auth_plugin_from_connection", plain := object())
    monkeypatch.delenv(SECRET, raising=False)
    bring_secret()
    assert utils.load_cli_auth_plugin_from_connection is plain
    (tmp_path / "secret").write_text("s3cret")
    monkeypatch.setenv(SECRET, str(tmp_path / "secret"))
    bring_secret()
    plugin = utils.load_cli_auth_plugin_from_connection("any")
    assert isinstance(plugin, WithSecret)
    assert plugin.write_tokens_to_metadata([]) == [(ACCESS_TOKEN_KEY, "s3cret")]


def test_no_module_of_the_working_folder_is_loaded(tmp_path: Path) -> None:
    """Who may write there, such as to a folder for everybody, would run code as whoever starts the server there."""
    (tmp_path / "random.py").write_text("raise SystemExit('loaded')")
    done = subprocess.run([*FLWR, "--version"], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0 and "loaded" not in done.stdout + done.stderr
