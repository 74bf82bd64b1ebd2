"""The process of one message on a device: it runs the app that is installed on the device, and no other.

Flower's ``flwr-clientapp`` (1.41) installs and loads the app that the SuperLink sends with a run: whoever runs the
SuperLink, or ends TLS in its place, runs code on every device. This command, ``python -m fedoel.client.device.task``,
does all that Flower's does, but neither unpacks nor loads what was sent.
"""

from __future__ import annotations

from flwr.clientapp import ClientApp
from flwr.supernode.cli.flwr_clientapp import flwr_clientapp
from flwr.supernode.runtime import run_clientapp

from ...protocol.host.flower import put_in_place
from ..app import app


def main() -> None:
    """Answer one message."""
    put_in_place(run_clientapp, "install_from_fab", lambda *_, **__: None)
    put_in_place(run_clientapp, "get_load_client_app_fn", lambda **_: installed_app)
    flwr_clientapp()


def installed_app(identifier: str, version: str, digest: str) -> ClientApp:
    """Return the device's own app, whatever the run names."""
    return app


if __name__ == "__main__":
    main()
