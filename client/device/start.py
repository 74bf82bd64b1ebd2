"""The Flower SuperNode of this device, with its log kept small."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from logging import Formatter, LogRecord
from logging.handlers import RotatingFileHandler
from pathlib import Path
from threading import Thread
from types import FrameType

from ...protocol.errors import ConfigError, FedoelError
from ...protocol.fleet.enrolment import Bundle
from ...protocol.host.processes import end_session, flower_environment, free_ports, start_process
from ...protocol.host.secret_file import check_secret
from .folder import DeviceFolder, joined, membership_of
from .settings import DeviceSettings, read_settings

LOG_BYTES, LOG_FILES, LOG_SECONDS = 500_000, 3, 5.0
# How often Flower looks for work that has come in: it starts a process for each message.
POLL = {"FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.5"}
# What a SuperNode says when it gives up on its server, whose connection broke while it was being made. It then neither
# ends nor comes back, and looks alive to whoever would start it again.
GIVEN_UP = "SSL/TLS handshake error detected"
COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def start(folder: DeviceFolder) -> int:
    """Run the SuperNode until it is stopped."""
    bundle, settings = joined(folder), read_settings(folder.settings)
    membership_of(folder)
    check_secret(folder.node_key, "give this device new keys")
    folder.flower.mkdir(parents=True, exist_ok=True)
    write_node_config(folder, bundle, settings)
    with _only_one(folder):
        return _run(folder, command(folder, bundle, free_ports(1)[0]), settings)


def command(folder: DeviceFolder, bundle: Bundle, port: int) -> list[str]:
    """Return the command of the SuperNode; `port` is for its own messages on this machine."""
    return [
        "flower-supernode", "--superlink", bundle.server, "--root-certificates", str(folder.authority),
        "--auth-supernode-private-key", str(folder.node_key), "--node-config", str(_node_config(folder)),
        "--host", "127.0.0.1", "--port", str(port), "--isolation", "subprocess",
    ]  # fmt: skip


def write_node_config(folder: DeviceFolder, bundle: Bundle, settings: DeviceSettings) -> None:
    """Write what the device's Flower app is told: its folder, its place in the fleet, and its store."""
    values: dict[str, str | int | float] = {
        "home": str(folder.path), "partition-id": bundle.number, "num-partitions": bundle.number + 1,
    }  # fmt: skip
    if settings.store.keep:
        values |= {
            "store": str(folder.store), "store-key": str(folder.store_key), "store-days": settings.store.days,
            "store-megabytes": settings.store.megabytes,
        }  # fmt: skip
    lines = [f"{name} = {json.dumps(value)}\n" for name, value in values.items()]
    _node_config(folder).write_text("".join(lines), encoding="utf-8")


def _node_config(folder: DeviceFolder) -> Path:
    return folder.flower / "node.toml"


@contextmanager
def _only_one(folder: DeviceFolder) -> Iterator[None]:
    """Keep a second one away: Flower would refuse both.

    Raises
    ------
    ConfigError
        If one runs.
    """
    if running := running_process(folder):
        raise ConfigError(f"process {running} runs this device already: stop it first")
    folder.process.write_text(str(os.getpid()), encoding="ascii")
    try:
        yield
    finally:
        folder.process.unlink(missing_ok=True)


def running_process(folder: DeviceFolder) -> int:
    """Return the id of the process that runs a device; 0 if none does."""
    try:
        pid = int(folder.process.read_text(encoding="ascii"))
        os.kill(pid, 0)
    except (OSError, ValueError):
        return 0
    return 0 if pid == os.getpid() else pid


def _run(folder: DeviceFolder, words: list[str], settings: DeviceSettings) -> int:
    """Run a command, keep what it says, and end all of it when we are told to end."""
    threads = str(settings.limits.threads)
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
    environment = flower_environment(folder.flower, **POLL, **dict.fromkeys(names, threads))
    process = start_process(words, environment, folder.flower)
    stopped: list[int] = []

    def end(number: int, frame: FrameType | None) -> None:
        stopped.append(number)
        process.terminate()  # Flower says goodbye to the server, and ends

    before = {sign: signal.signal(sign, end) for sign in (signal.SIGTERM, signal.SIGINT)}
    print(f"the SuperNode runs; its log is {folder.log}", flush=True)
    reader = Thread(target=_keep_log, args=(process, folder.log), daemon=True)
    reader.start()
    try:
        process.wait()
    finally:
        end_session(process)
        reader.join(LOG_SECONDS)
        for sign, handler in before.items():
            signal.signal(sign, handler)
    if stopped:
        return 0
    raise FedoelError(
        f"the SuperNode ended, or gave up on the server, with exit code {process.returncode}: start it again, as the "
        f"service does; `fedoel device doctor {folder.path}` may "
        f"say why, and {folder.log}"
    )


def _keep_log(process: subprocess.Popen[bytes], path: Path) -> None:
    """Copy what a process says to a log, in files that do not grow; end one that has given up."""
    handler = RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=LOG_FILES, encoding="utf-8")
    handler.setFormatter(Formatter("%(asctime)s %(message)s"))
    assert process.stdout is not None
    try:
        for line in process.stdout:
            text = COLOURS.sub("", line.decode("utf-8", "replace")).strip()
            if text.removeprefix("INFO :").strip():  # Flower logs empty lines, too
                handler.emit(LogRecord("supernode", 20, "", 0, "%s", (text,), None))
            if GIVEN_UP in text:
                process.kill()
    finally:
        handler.close()
