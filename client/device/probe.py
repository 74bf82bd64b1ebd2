"""Connect to a fleet's server once: name, connection, certificate, answer and clock, each with a remedy of its own."""

from __future__ import annotations

import socket
import ssl
import time
from email.utils import parsedate_to_datetime
from http.client import HTTPException, HTTPSConnection
from pathlib import Path

from ...protocol.errors import FedoelError

PATH = "/v1/fleet/"  # the only path that a reverse proxy has to forward
SECONDS = 5.0


class ProbeError(FedoelError):
    """A step of the connection that failed.

    Parameters
    ----------
    step
        Which step.
    remedy
        What to do about it.
    """

    def __init__(self, step: str, remedy: str) -> None:
        super().__init__(remedy)
        self.step = step


def probe(host: str, port: int, authority: Path) -> float:
    """Read the server's clock over TLS, with the fleet's own certificate authority.

    Returns
    -------
    float
        Seconds by which this machine's clock is ahead of the server's, accurate to a second.

    Raises
    ------
    ProbeError
        If the server cannot be reached, or is not the fleet's.
    """
    address = f"{host}:{port}"
    try:
        context = ssl.create_default_context(cafile=str(authority))
    except OSError as error:
        raise ProbeError("the authority's certificate", f"{authority}: {error}; join again") from error
    connection = HTTPSConnection(host, port, timeout=SECONDS, context=context)
    try:
        sent = time.time()
        connection.request("GET", PATH)
        date = connection.getresponse().getheader("date")
        now = (sent + time.time()) / 2
    except ssl.SSLCertVerificationError as error:
        remedy = (
            f"{error.verify_message}: the server's certificate is not for {host}, has run out, or is not from "
            "the fleet's authority; a clock that is far off looks the same"
        )
        raise ProbeError(f"the certificate of {address}", remedy) from error
    except ssl.SSLError as error:
        raise ProbeError(f"TLS with {address}", f"{error.reason}: it does not speak TLS; check the port") from error
    except socket.gaierror as error:
        raise ProbeError(f"the name {host}", f"{error.strerror}: check the network and the name") from error
    except (OSError, HTTPException) as error:
        remedy = f"{error or type(error).__name__}: check the network, the firewall, and that the server runs"
        raise ProbeError(f"reach {address}", remedy) from error
    finally:
        connection.close()
    if not date:
        raise ProbeError(f"the clock of {address}", "the server sends no date: let the reverse proxy pass it on")
    return now - (parsedate_to_datetime(date).timestamp() + 0.5)
