"""The SuperLink's control API answers who brings the owner's secret."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from flwr.cli import utils
from flwr.common.constant import ACCESS_TOKEN_KEY
from flwr.supercore.error import BearerAuthenticationError
from flwr.superlink.dependencies.account import AccountAccessDependency
from starlette.requests import Request

from fedoel.server.operate.control import OwnerOnly, WithSecret, bring_secret
from fedoel.server.operate.flower import FLWR, SECRET


def request(*headers: str) -> Request:
    return Request({"type": "http", "headers": [(b"authorization", header.encode()) for header in headers]})


def test_the_secret_opens_and_nothing_else_does() -> None:
    access = AccountAccessDependency(OwnerOnly("s3cret"))
    assert access(request("Bearer s3cret")).account_name
    for refused in ((), ("Bearer s3cre",), ("Bearer s3cret2",), ("Basic s3cret",), ("Bearer s3cret", "Bearer s3cret")):
        with pytest.raises(BearerAuthenticationError):
            access(request(*refused))


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
