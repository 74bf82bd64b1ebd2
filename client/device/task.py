"""The process of one message on a device: it runs the app that is installed on the device, and no other.

Flower's ``flwr-clientapp`` (1.41) installs and loads the app that the SuperLink sends with a run: whoever runs the
SuperLink, or ends TLS in its place, runs code on every device. This command, ``python -m fedoel.client.device.task``,
does all that Flower's does, but neither unpacks nor loads what was sent. Nor does it import the SuperNode, as Flower's
command does, with web server and database: for a message whose games are short, that takes longer than the answer.
"""

from __future__ import annotations

from argparse import ArgumentParser

from flwr.clientapp import ClientApp
from flwr.common.args import add_args_flwr_app_common, try_obtain_flwr_app_token
from flwr.supercore.tls import validate_and_resolve_root_certificates
from flwr.supernode.runtime import run_clientapp

from ...protocol.host.flower import put_in_place
from ..app import app


def main() -> None:
    """Answer one message; takes the arguments that `fedoel.protocol.host.superexec` passes."""
    parser = ArgumentParser(description="Answer one message to a device with the app that is installed on it.")
    parser.add_argument("--runtime-api-address", required=True, help="where the device's SuperNode is asked for it")
    add_args_flwr_app_common(parser, include_runtime_dependency_install=False)
    args = parser.parse_args()
    put_in_place(run_clientapp, "install_from_fab", lambda *_, **__: None)
    put_in_place(run_clientapp, "get_load_client_app_fn", lambda **_: installed_app)
    run_clientapp.run_clientapp(
        args.runtime_api_address,
        try_obtain_flwr_app_token(args),
        args.insecure,
        validate_and_resolve_root_certificates(args.root_certificates, args.insecure),
        args.parent_pid,
    )


def installed_app(identifier: str, version: str, digest: str) -> ClientApp:
    """Return the device's own app, whatever the run names."""
    return app


if __name__ == "__main__":
    main()
