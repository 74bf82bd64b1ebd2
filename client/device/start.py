"""Runs the Flower SuperNode of this device and what starts its tasks, and bounds the size of their log."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import time
from collections.abc import Sequence
from logging import Formatter, LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from shlex import quote
from tempfile import TemporaryDirectory
from threading import Thread
from types import FrameType

from ...protocol.errors import FedoelError
from ...protocol.fleet.enrolment import Bundle
from ...protocol.host.files import check_secret, make_private_folder
from ...protocol.host.flower import superexec_command
from ...protocol.host.lock import one_owner
from ...protocol.host.processes import end_session, flower_environment, free_ports, start_process
from .deaths import forget, working
from .folder import DeviceFolder, joined, membership_of
from .settings import DeviceSettings, read_settings

LOG_BYTES, LOG_FILES, LOG_SECONDS = 500_000, 3, 5.0
POLL_SECONDS = 0.2
TASK = "fedoel.client.device.task"
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
    with one_owner(folder.process, "runs this device already: stop it first"), working(folder.working):
        write_node_config(folder, bundle, settings)
        port = free_ports(1)[0]
        tasks = superexec_command({"flwr-clientapp": TASK}, f"127.0.0.1:{port}", folder.runtime_secret)
        with TemporaryDirectory(prefix="fedoel-") as scratch:
            status = _run(folder, [command(folder, bundle, port), tasks], settings, Path(scratch))
        forget(folder.working)
        return status


def command(folder: DeviceFolder, bundle: Bundle, port: int) -> list[str]:
    """Return the command of the SuperNode; `port` is the one on which its own processes reach it.

    It starts no processes for its tasks: in Flower 1.41 it would then give them to any user of the machine.
    """
    return [
        "flower-supernode", "--superlink", bundle.server, "--root-certificates", str(folder.authority),
        "--auth-supernode-private-key", str(folder.node_key), "--node-config", str(folder.node_config),
        "--host", "127.0.0.1", "--port", str(port), "--isolation", "process",
        "--superexec-auth-secret-file", str(folder.runtime_secret),
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


def _run(folder: DeviceFolder, commands: Sequence[list[str]], settings: DeviceSettings, scratch: Path) -> int:
    """Run the SuperNode and what starts its tasks until either ends or this process is told to, and end both.

    Parameters
    ----------
    scratch
        Folder for their temporary files: they are killed in the end, and clean up nothing.

    Raises
    ------
    FedoelError
        If one of them ended by itself.
    """
    threads = str(settings.limits.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = flower_environment(folder.flower, **POLL, **dict.fromkeys(names, threads), TMPDIR=str(scratch))
    processes = [start_process(arguments, environment, folder.flower) for arguments in commands]
    node, received = processes[0], list[int]()

    def end(number: int, frame: FrameType | None) -> None:
        received.append(number)
        node.terminate()  # Flower tells the server, and ends

    handlers = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    print(f"the SuperNode runs; its log is {folder.log}", flush=True)
    refusals: list[str] = []
    log = RotatingFileHandler(folder.log, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    log.setFormatter(Formatter("%(asctime)s %(message)s"))
    readers = [Thread(target=_keep_log, args=(process, log, refusals), daemon=True) for process in processes]
    for reader in readers:
        reader.start()
    try:
        while all(process.poll() is None for process in processes):
            time.sleep(POLL_SECONDS)
    finally:
        for process in processes:
            end_session(process)
        for reader in readers:
            reader.join(LOG_SECONDS)
        log.close()
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
        f"the SuperNode ended, or gave up on the server, with exit code {node.returncode}: start it again, as the "
        f"service does; `fedoel device doctor {quote(str(folder.path))}` may "
        f"say why, and {folder.log}"
    )


def _keep_log(process: subprocess.Popen[bytes], log: RotatingFileHandler, refusals: list[str]) -> None:
    """Copy a process's output to the log; kill the process if it has given up on its server.

    Lines that say that the server refuses the node are appended to `refusals`.
    """
    assert process.stdout is not None
    for line in process.stdout:
        text = COLOURS.sub("", line.decode("utf-8", "replace")).strip()
        if text.removeprefix("INFO :").strip():  # Flower logs empty lines
            log.handle(LogRecord("supernode", 20, "", 0, "%s", (text,), None))
        if IN_USE in text:
            refusals.append(text)
        if GIVEN_UP in text:
            process.kill()
