"""The fleet's SuperLink, with TLS and node authentication, and its control through the `flwr` command."""

from __future__ import annotations

import json
import secrets
import ssl
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...protocol.errors import FedoelError
from ...protocol.host.files import make_private_file, replace_file, write_whole
from ...protocol.host.flower import superexec_command
from ...protocol.host.processes import flower_environment, start_process, stop, wait_until_healthy
from .authority import authorities
from .database import prune
from .folder import ServerFolder, Settings
from .roll import Enrolled, Roll

SECRET = "FEDOEL_CONTROL_SECRET"  # environment variable with the path of what the control API asks for
CONTROL = [sys.executable, "-P", "-m", "fedoel.server.operate.control"]  # -P: no modules from the working folder
FLWR, SUPERLINK = [*CONTROL, "flwr"], [*CONTROL, "superlink"]
CONNECTION = "fleet"
KNOWN = ("registered", "online", "offline")  # statuses of a node that may connect
BATCH = """
import json, sys
from fedoel.server.operate.control import app, bring_secret
bring_secret()
for arguments in json.load(sys.stdin):
    app(arguments, standalone_mode=False)
    print(end="\\0", flush=True)
"""


@dataclass(frozen=True, slots=True)
class Fleet:
    """The SuperLink of a server's folder."""

    folder: ServerFolder
    settings: Settings

    @property
    def url(self) -> str:
        host, port = self.settings.local
        return f"https://{f'[{host}]' if ':' in host else host}:{port}"

    @property
    def environment(self) -> dict[str, str]:
        """Environment of Flower's commands; writes the configuration file of the connection of ``flwr``."""
        home = self.folder.flower
        connection = f"[superlink.{CONNECTION}]\naddress = {json.dumps(self.url.removeprefix('https://'))}\n"
        authority = f"root-certificates = {json.dumps(str(self.folder.ca_certificate))}\n"
        write_whole(home / "config.toml", f'[superlink]\ndefault = "{CONNECTION}"\n\n{connection}{authority}'.encode())
        return flower_environment(home, **{SECRET: str(self.folder.control_secret)})

    @property
    def process_file(self) -> Path:
        """File with the process id of the last SuperLink started."""
        return self.folder.flower / "superlink.pid"

    def running(self) -> bool:
        """Whether the SuperLink answers; raises `ConfigError` if the fleet's authority cannot be read."""
        authorities(self.folder)  # which names a file that `ssl` does not
        context = ssl.create_default_context(cafile=str(self.folder.ca_certificate))
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=2, context=context):
                return True
        except (urllib.error.URLError, OSError):
            return False

    @contextmanager
    def superlink(self) -> Iterator[Mapping[str, str]]:
        """Run the SuperLink and what starts the run's process, and yield the environment for commands that use it.

        Raises
        ------
        FedoelError
            If the SuperLink does not start, or its database cannot be used.
        """
        folder, environment, listen = self.folder, self.environment, self.settings.listen.rpartition(":")
        replace_file(folder.control_secret, secrets.token_hex(32), secret=True)
        # In Flower 1.41, a SuperLink that starts processes itself gives their tasks to whoever reaches its port.
        address, apps = self.url.removeprefix("https://"), {"flwr-serverapp": ["flwr-serverapp"]}
        tasks = superexec_command(apps, address, folder.runtime_secret, folder.ca_certificate)
        command = [
            *SUPERLINK, "--host", listen[0].strip("[]"), "--port", listen[2],
            "--ssl-ca-certfile", str(self.folder.ca_certificate), "--ssl-certfile", str(self.folder.certificate),
            "--ssl-keyfile", str(self.folder.key), "--enable-supernode-auth",
            "--database", str(self.folder.database), "--isolation", "process",
            "--superexec-auth-secret-file", str(folder.runtime_secret),
        ]  # fmt: skip
        for database in self.folder.flower.glob(f"{self.folder.database.name}*"):
            make_private_file(database)  # earlier releases let others read it
        prune(self.folder.database)
        with ExitStack() as running:
            process = start_process(command, environment, folder.flower, folder.log)
            running.callback(stop, process)
            write_whole(self.process_file, str(process.pid).encode())
            wait_until_healthy(process, self.url, folder.log, folder.ca_certificate)
            running.callback(stop, start_process(tasks, environment, folder.flower, folder.log))
            yield environment

    def nodes(self) -> dict[str, str]:
        """Return the status of each node that the running SuperLink knows, by node id."""
        [answer] = self._flwr([["supernode", "list", CONNECTION]])
        return {str(node["node-id"]): str(node["status"]) for node in answer["nodes"]}

    def register(self, roll: Roll) -> None:
        """Register the fleet's members with the running SuperLink, and unregister revoked devices.

        The SuperLink does not report which node belongs to which device, so node ids are also kept in a file.
        """
        recorded = self.node_ids()
        statuses = self.nodes() if recorded else {}
        registered = {number: node for number, node in recorded.items() if statuses.get(node) in KNOWN}
        new = [device for device in roll.active if device.number not in registered]
        revoked = [device.number for device in roll.devices if device.revoked and device.number in registered]
        answers = self._flwr([self._registration(device) for device in new])
        registered |= {device.number: str(answer["node-id"]) for device, answer in zip(new, answers, strict=True)}
        self._flwr([["supernode", "unregister", registered.pop(number), CONNECTION] for number in revoked])
        write_whole(self._node_file, json.dumps(registered).encode())

    def node_ids(self) -> dict[int, str]:
        """Return the recorded node ids by device number."""
        path = self._node_file
        return {int(number): node for number, node in json.loads(path.read_bytes()).items()} if path.exists() else {}

    @property
    def _node_file(self) -> Path:
        return self.folder.flower / "nodes.json"

    def _registration(self, device: Enrolled) -> list[str]:
        key = self.folder.flower / "keys" / f"{device.number}.pub"
        write_whole(key, f"{device.node_key}\n".encode())
        return ["supernode", "register", str(key), CONNECTION, "--name", device.name]

    def _flwr(self, commands: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
        """Run `flwr` commands, and return their JSON answers.

        They run in one process, because `flwr` takes seconds to start.

        Raises
        ------
        FedoelError
            If a command fails.
        """
        if not commands:
            return []
        lines = json.dumps([[*line, "--format", "json"] for line in commands])
        completed = subprocess.run(
            [sys.executable, "-P", "-c", BATCH], input=lines, env=self.environment, capture_output=True, text=True,
            check=False,
        )  # fmt: skip
        try:
            answers: list[dict[str, Any]] = [json.loads(text) for text in completed.stdout.split("\0")[:-1]]
        except ValueError:
            answers = []
        if len(answers) < len(commands) or not all(answer.get("success") for answer in answers):
            output = (completed.stdout + completed.stderr)[-800:]
            raise FedoelError(f"`flwr {' '.join(commands[0][:2])}` failed: {output}")
        return answers
