"""Flower's control API, which starts runs and registers nodes, for the fleet's owner alone.

Flower 1.41 serves it at the port that devices use and, without an account service, asks nobody who they are: whoever
reaches the port could run an app with the owner's keys. Here the SuperLink wants a secret, which is in a file of the
owner's, and the command ``flwr`` brings it. The same port has the runtime API, which hands out the run's task. Both
answer the server's own machine only; other machines reach the Fleet API and nothing else.

Both are run as ``python -m fedoel.server.operate.control superlink|flwr ARGUMENTS``, with the path of the secret in the
environment variable `SECRET`; without it, ``flwr`` is Flower's own.
"""

from __future__ import annotations

import hmac
import os
import socket
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flwr.cli import utils
from flwr.cli.app import app
from flwr.cli.auth_plugin.noop_auth_plugin import NoOpCliAuthPlugin
from flwr.common.constant import ACCESS_TOKEN_KEY
from flwr.supercore.auth.typing import AccountInfo
from flwr.superlink import main as main_of_superlink
from flwr.superlink.auth_plugin import NoOpControlAuthnPlugin
from flwr.superlink.cli import flower_superlink
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ...protocol.host.flower import put_in_place
from .flower import SECRET

Metadata = Sequence[tuple[str, str | bytes]]
FLEET_API = "/v1/fleet/"


class OwnerOnly(NoOpControlAuthnPlugin):
    """Lets the SuperLink answer requests that bring the secret, and no others."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def validate_tokens_in_metadata(self, metadata: Metadata) -> tuple[bool, AccountInfo | None]:
        """Return whether a request brings the secret, and Flower's account for everybody who does."""
        brought = str(dict(metadata).get(ACCESS_TOKEN_KEY, ""))
        if not hmac.compare_digest(brought.encode(), self._secret.encode()):
            return False, None
        return super().validate_tokens_in_metadata(metadata)


class WithSecret(NoOpCliAuthPlugin):
    """Adds the secret to every request of the command ``flwr``."""

    def __init__(self, secret: str) -> None:
        self._secret = secret

    def write_tokens_to_metadata(self, metadata: Metadata) -> Metadata:
        """Return the metadata with the secret."""
        return [*metadata, (ACCESS_TOKEN_KEY, self._secret)]


class FleetApiOnly:
    """Answers other machines on the paths of the Fleet API alone, and this machine on all.

    Parameters
    ----------
    app
        What answers the requests that are let through.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or answer that there is nothing."""
        allowed = scope["type"] == "lifespan" or scope["path"].startswith(FLEET_API) or _is_from_here(scope)
        await (self._app if allowed else PlainTextResponse("Not Found", 404))(scope, receive, send)


def _is_from_here(scope: Scope) -> bool:
    """Whether the address at the other end of a connection is one of this machine's."""
    client = scope.get("client")
    return client is not None and is_own_address(client[0])


def is_own_address(address: str) -> bool:
    """Whether an IP address is this machine's: only then are packets to it sent from it. Nothing is sent here."""
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as unsent:
            unsent.connect((address, 9))
            return str(unsent.getsockname()[0]) == address
    except OSError:
        return False


def bring_secret() -> None:
    """Let the commands of ``flwr`` in this process bring the secret, if there is one."""
    if path := os.environ.get(SECRET):
        secret = Path(path).read_text(encoding="ascii")
        put_in_place(utils, "load_cli_auth_plugin_from_connection", lambda *_, **__: WithSecret(secret))


def superlink() -> None:
    """Run Flower's SuperLink, whose control API wants the secret, and whose Fleet API alone is for other machines."""
    secret = Path(os.environ[SECRET]).read_text(encoding="ascii")
    module = sys.modules[flower_superlink.__module__]
    put_in_place(module, "load_control_authn_plugin", lambda: OwnerOnly(secret))
    make: Any = vars(main_of_superlink).get("create_app")
    put_in_place(main_of_superlink, "create_app", lambda *arguments: FleetApiOnly(make(*arguments)))
    flower_superlink()


def main() -> None:
    """Run the command that the first argument names."""
    if sys.argv.pop(1) == "superlink":
        superlink()
    else:
        bring_secret()
        app()


if __name__ == "__main__":
    main()
