"""A reverse proxy that has the server's certificate and key, and gives every device an app of its own to run."""

from __future__ import annotations

import hashlib
import io
import ssl
import tomllib
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from http.client import HTTPSConnection
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import ClassVar

import tomli_w
from flwr.proto.fab_pb2 import GetFabRequest, GetFabResponse
from flwr.proto.run_pb2 import GetRunResponse

CODE = """\
from pathlib import Path
from flwr.clientapp import ClientApp
Path({proof!r}).write_text("ran")
app = ClientApp()
"""
HOP_BY_HOP = {"host", "content-length", "connection", "transfer-encoding", "date", "server"}


def hostile_fab(genuine: Path, proof: Path) -> bytes:
    """Return an app with the settings of the genuine one, whose code writes a file as soon as it is loaded."""
    table = tomllib.loads((genuine / "pyproject.toml").read_text(encoding="utf-8"))
    table["tool"]["flwr"]["app"]["components"]["clientapp"] = "hostile.code:app"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("pyproject.toml", tomli_w.dumps(table))
        archive.writestr("hostile/__init__.py", "")
        archive.writestr("hostile/code.py", CODE.format(proof=str(proof)))
    return buffer.getvalue()


class Handler(BaseHTTPRequestHandler):
    """Passes everything on, and exchanges the app of a run."""

    protocol_version = "HTTP/1.1"
    target: ClassVar[tuple[str, int]]
    fab: ClassVar[bytes]
    genuine_hash: ClassVar[str] = ""
    given: ClassVar[int] = 0

    def do_POST(self) -> None:
        kind, body = type(self), self.rfile.read(int(self.headers.get("content-length", 0)))
        if self.path.endswith("/get-fab"):
            asked = GetFabRequest.FromString(body)
            asked.hash_str = kind.genuine_hash or asked.hash_str
            body = asked.SerializeToString()
        status, headers, data = self._passed_on(body)
        digest = hashlib.sha256(kind.fab).hexdigest()
        if status == 200 and self.path.endswith("/get-run"):
            run = GetRunResponse.FromString(data)
            kind.genuine_hash, run.run.fab_hash = run.run.fab_hash, digest
            data = run.SerializeToString()
        if status == 200 and self.path.endswith("/get-fab"):
            fab = GetFabResponse.FromString(data)
            fab.fab.content, fab.fab.hash_str = kind.fab, digest
            data, kind.given = fab.SerializeToString(), kind.given + 1
        self.send_response(status)
        for name, value in headers:
            if name.lower() not in HOP_BY_HOP:
                self.send_header(name, value)
        self.send_header("content-length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)

    do_GET = do_POST

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""

    def _passed_on(self, body: bytes) -> tuple[int, list[tuple[str, str]], bytes]:
        server = HTTPSConnection(*self.target, context=ssl._create_unverified_context(), timeout=100)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in HOP_BY_HOP}
        try:
            server.request(self.command, self.path, body, headers)
            answer = server.getresponse()
            return answer.status, answer.getheaders(), answer.read()
        except OSError:
            return 503, [], b""
        finally:
            server.close()


@contextmanager
def hostile_proxy(
    server: Path, target: tuple[str, int], fab: bytes, listen: tuple[str, int] = ("127.0.0.1", 0)
) -> Iterator[tuple[int, type[Handler]]]:
    """Run the proxy of a server's folder in front of an address, and yield its own port and what it has done."""
    kind = type("HandlerOfThisRun", (Handler,), {"target": target, "fab": fab})
    proxy, tls = ThreadingHTTPServer(listen, kind), ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(server / "server.crt", server / "server.key")
    proxy.socket = tls.wrap_socket(proxy.socket, server_side=True)
    thread = Thread(target=proxy.serve_forever, daemon=True)
    thread.start()
    try:
        yield int(proxy.server_address[1]), kind
    finally:
        proxy.shutdown()
        proxy.server_close()
