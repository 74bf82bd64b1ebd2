"""Runs the Flower SuperNode of this device, and bounds the size of its log."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from logging import Formatter, LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from shlex import quote
from threading import Thread
from types import FrameType

from ...protocol.errors import FedoelError
from ...protocol.fleet.enrolment import Bundle
from ...protocol.host.files import check_secret, make_private_folder
from ...protocol.host.lock import one_owner
from ...protocol.host.processes import end_session, flower_environment, free_ports, start_process
from .folder import DeviceFolder, joined, membership_of
from .settings import DeviceSettings, read_settings

LOG_BYTES, LOG_FILES, LOG_SECONDS = 500_000, 3, 5.0
# Seconds between two checks of Flower for new messages; it starts one process per message.
POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5"}
# A SuperNode logs this when its connection breaks during the handshake. It then neither ends nor reconnects, so that a
# service manager would take it for alive.
GIVEN_UP = "SSL/TLS handshake error detected"
# A SuperNode logs this when the SuperLink takes a node with its key for alive: FLEET_NODE_ACTIVATION_FAILED.
IN_USE = "[code: 2004]"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def start(folder: DeviceFolder) -> int:
    """Run the SuperNode until it is stopped."""
    bundle, settings = joined(folder), read_settings(folder.settings)
    membership_of(folder)
    check_secret(folder.node_key, "give this device new keys")
    for private in (folder.path, folder.identity.parent, folder.flower):
        make_private_folder(private)
    with one_owner(folder.process, "runs this device already: stop it first"):
        write_node_config(folder, bundle, settings)
        return _run(folder, command(folder, bundle, free_ports(1)[0]), settings)


def command(folder: DeviceFolder, bundle: Bundle, port: int) -> list[str]:
    """Return the command of the SuperNode; `port` is the one on which its own processes reach it."""
    return [
        "flower-supernode", "--superlink", bundle.server, "--root-certificates", str(folder.authority),
        "--auth-supernode-private-key", str(folder.node_key), "--node-config", str(folder.node_config),
        "--host", "127.0.0.1", "--port", str(port), "--isolation", "subprocess",
    ]  # fmt: skip


def write_node_config(folder: DeviceFolder, bundle: Bundle, settings: DeviceSettings) -> None:
    """Write the node's configuration for the Flower app: the device's folder, its index in the fleet, and its store."""
    values: dict[str, str | int | float] = {
        "home": str(folder.path), "partition-id": bundle.number, "num-partitions": bundle.number + 1,
    }  # fmt: skip
    if settings.store.keep:
        values |= {
            "store": str(folder.store), "store-key": str(folder.store_key), "store-days": settings.store.days,
            "store-megabytes": settings.store.megabytes,
        }  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    folder.node_config.write_text("".join(lines), encoding="utf-8")


def _run(folder: DeviceFolder, arguments: list[str], settings: DeviceSettings) -> int:
    """Run the SuperNode until it ends or this process is told to, and end all processes that it has started.

    Raises
    ------
    FedoelError
        If the SuperNode ended by itself.
    """
    threads = str(settings.limits.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = flower_environment(folder.flower, **POLL, **dict.fromkeys(names, threads))
    process = start_process(arguments, environment, folder.flower)
    received: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        process.terminate()  # Flower tells the server, and ends

    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    print(f"the SuperNode runs; its log is {folder.log}", flush=True)
    refusals: list[str] = []
    reader = Thread(target=_keep_log, args=(process, folder.log, refusals), daemon=True)
    reader.start()
    try:
        process.wait()
    finally:
        end_session(process)
        reader.join(LOG_SECONDS)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    if received:
        return 0
    if refusals:
        raise FedoelError(
            "another device uses these keys, such as a copy of this folder, or this one ended less than a minute ago: "
            "give a copy keys of its own with `fedoel device wipe` and `fedoel device join`, or wait a minute"
        )
    raise FedoelError(
        f"the SuperNode ended, or gave up on the server, with exit code {process.returncode}: start it again, as the "
        f"service does; `fedoel device doctor {quote(str(folder.path))}` may "
        f"say why, and {folder.log}"
    )


def _keep_log(process: subprocess.Popen[bytes], path: Path, refusals: list[str]) -> None:
    """Copy a process's output to a rotating log; kill the process if it has given up on its server.

    Lines that say that the server refuses the node are appended to `refusals`.
    """
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    handler.setFormatter(Formatter("%(asctime)s %(message)s"))
    assert process.stdout is not None
    try:
        for line in process.stdout:
            text = COLOURS.sub("", line.decode("utf-8", "replace")).strip()
            if text.removeprefix("INFO :").strip():  # Flower logs empty lines
                handler.emit(LogRecord("supernode", 20, "", 0, "%s", (text,), None))
            if IN_USE in text:
                refusals.append(text)
            if GIVEN_UP in text:
                process.kill()
    finally:
        handler.close()
