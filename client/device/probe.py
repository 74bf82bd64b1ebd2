"""Reach a fleet's server once: name, connection, certificate, answer and clock, each failure with its own remedy."""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from ...protocol.errors import FedoelError

PATH = "/v1/fleet/"  # all that a reverse proxy lets through
SECONDS = 5.0


class ProbeError(FedoelError):
    """A step towards the server that fails.

    Parameters
    ----------
    step
        What was tried.
    remedy
        What to do.
    """

    def __init__(self, step: str, remedy: str) -> None:
        super().__init__(remedy)
        self.step = step


def probe(host: str, port: int, authority: Path) -> float:
    """Ask the server for its time, over TLS and with the fleet's own authority.

    Returns
    -------
    float
        Seconds by which this machine's clock is ahead of the server's, to a second.

    Raises
    ------
    ProbeError
        If the server cannot be reached, or is not the fleet's.
    """
    where = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise ProbeError("the authority's certificate", f"{authority}: {error}; join again") from error
    connection = HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        began = time.time()
        connection.request("GET", PATH)
        date = connection.getresponse().getheader("date")
        now = (began + time.time()) / 2
    except ssl.SSLCertVerificationError as error:
        remedy = (
            f"{error.verify_message}: the server's certificate is not for {host}, has run out, or is not from "
            "the fleet's authority; a clock that is far off looks the same"
        )
        raise ProbeError(f"the certificate of {where}", remedy) from error
    except ssl.SSLError as error:
        raise ProbeError(f"TLS with {where}", f"{error.reason}: it does not speak TLS; check the port") from error
    except socket.gaierror as error:
        raise ProbeError(f"the name {host}", f"{error.strerror}: check the network and the name") from error
    except (OSError, HTTPException) as error:
        remedy = f"{error or type(error).__name__}: check the network, the firewall, and that the server runs"
        raise ProbeError(f"reach {where}", remedy) from error
    finally:
        connection.close()
    if not date:
        raise ProbeError(f"the clock of {where}", "the server sends no date: let the reverse proxy pass it on")
    return now - (parsedate_to_datetime(date).timestamp() + 0.5)
