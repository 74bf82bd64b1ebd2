"""Who may read the live page: requests to one of its own names, with the token where the page is not on the loopback.

A page on the loopback is still reachable by scripts of other pages, through a name that an attacker lets point to it
(DNS rebinding). Such requests carry that name in their Host header and are refused.
"""

from __future__ import annotations

import hmac
import ipaddress
import socket
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

COOKIE = "fedoel-dash"
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "Cache-Control": "no-store",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def is_loopback(host: str) -> bool:
    """Whether an address is one that only this machine reaches."""
    if host == "localhost":
        return True
    address = _address(host)
    return address is not None and address.is_loopback


@dataclass(frozen=True, slots=True)
class Access:
    """Names of the page, and the token that it asks for.

    Parameters
    ----------
    host
        Address on which it listens.
    token
        Empty for a page without one.
    """

    host: str
    token: str = ""

    def is_ours(self, header: str) -> bool:
        """Whether a Host header names this page."""
        try:
            name = urlsplit(f"//{header}").hostname or ""
        except ValueError:
            return False
        if is_loopback(name):
            return True
        if is_loopback(self.host):
            return False
        # An address in figures is never rebound; the page may listen on all addresses of the machine.
        return name in (self.host.lower(), socket.gethostname().lower()) or _address(name) is not None

    def is_known(self, token: str | None) -> bool:
        """Whether a request may pass with this token, compared in constant time."""
        return not self.token or hmac.compare_digest((token or "").encode(), self.token.encode())


class Guard:
    """ASGI middleware that refuses what `Access` does not allow, and sets the headers of every answer."""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app, self._access = app, access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        answer = self._refusal(Request(scope)) or self._app
        await answer(scope, receive, send_with_headers)

    def _refusal(self, request: Request) -> Response | None:
        """Return the answer to a request that does not reach the page; None if it does."""
        if not self._access.is_ours(request.headers.get("host", "")):
            return PlainTextResponse("This page is not served under that name.", 421)
        given = request.query_params.get("token")
        if self._access.token and given is not None and self._access.is_known(given):
            answer = RedirectResponse(request.url.path, 303)
            answer.set_cookie(COOKIE, given, httponly=True, samesite="strict")
            return answer
        if not self._access.is_known(request.cookies.get(COOKIE)):
            return PlainTextResponse("Open the address with the token that `fedoel dash` has printed.", 401)
        return None


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None
