"""The live page as a Starlette app under uvicorn: the page, its style and script, and the stamp of the run's files."""

from __future__ import annotations

import secrets
import socket
from pathlib import Path
from threading import Lock

import uvicorn
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, PlainTextResponse, Response
from starlette.routing import Route

from ...protocol.errors import ConfigError
from .access import Access, Guard, is_loopback
from .render import FOLDER, SCRIPT, STYLE, render
from .watched import Watched


def make_app(watched: Watched, access: Access) -> Starlette:
    """Return the app that shows a run. It answers GET alone and changes nothing."""
    one_at_a_time = Lock()
    shown: dict[str, str] = {}  # the last page, by the stamp of the files that it shows

    def page(_: Request) -> Response:
        with one_at_a_time:
            stamp = watched.stamp()
            if stamp not in shown:
                text = render(watched.view(), stamp)
                shown.clear()
                shown[stamp] = text
            return HTMLResponse(shown[stamp])

    def version(_: Request) -> Response:
        return PlainTextResponse(watched.stamp())

    def file(name: str) -> Route:
        return Route(f"/{name}", lambda _: FileResponse(FOLDER / name), methods=["GET"])

    routes = [Route("/", page, methods=["GET"]), Route("/version", version, methods=["GET"]), file(STYLE), file(SCRIPT)]
    return Starlette(routes=routes, middleware=[Middleware(Guard, access=access)])


class _Server(uvicorn.Server):
    """Says how it ends once it takes signals: before, an interrupt may come where Python ignores it."""

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to answer."""
        await super().startup(sockets)
        print("Ctrl-C ends it; the run goes on", flush=True)


def _name_of(host: str) -> str:
    """Return what names an address in a browser: where that is all addresses of this machine, the machine's name."""
    if host.strip("0:.") == "":
        return socket.gethostname()
    return f"[{host}]" if ":" in host else host


def serve(folder: Path, host: str, port: int) -> None:
    """Serve the page of a run until the process is interrupted, and print its address.

    Parameters
    ----------
    host, port
        Where to listen. Everything but the loopback asks for a token.

    Raises
    ------
    ConfigError
        If there is no run in the folder, or the address cannot be listened on.
    """
    watched = Watched(folder)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except (OSError, OverflowError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigError(f"cannot listen on {host}, port {port}: {reason}; choose another --port or --host") from error
    access = Access(host, "" if is_loopback(host) else secrets.token_urlsafe(32))
    port = listening.getsockname()[1]
    print(f"http://{_name_of(host)}:{port}/{f'?token={access.token}' if access.token else ''}", flush=True)
    if access.token:
        print("whoever has this address may read the page, unencrypted; an SSH tunnel to the loopback is safer")
    config = uvicorn.Config(
        make_app(watched, access), access_log=False, log_level="warning", proxy_headers=False, server_header=False,
        lifespan="off", ws="none", timeout_graceful_shutdown=2,
    )  # fmt: skip
    with listening:
        _Server(config).run(sockets=[listening])
