"""The folder of a server: where its keys, its devices, its run and Flower's files are."""

from __future__ import annotations

import json
import tomllib
from dataclasses import dataclass
from pathlib import Path

from ...protocol.errors import ConfigError
from ...protocol.fleet.enrolment import check_address
from ...protocol.host.files import write_whole

SETTINGS, RUN_FILE = "server.toml", "run.toml"


@dataclass(frozen=True, slots=True)
class ServerFolder:
    """Paths inside a server's folder.

    Parameters
    ----------
    path
        The folder, absolute.
    """

    path: Path

    @property
    def ca_certificate(self) -> Path:
        return self.path / "ca.crt"

    @property
    def ca_key(self) -> Path:
        return self.path / "ca.key"

    @property
    def certificate(self) -> Path:
        return self.path / "server.crt"

    @property
    def key(self) -> Path:
        return self.path / "server.key"

    @property
    def fleet(self) -> Path:
        """The fleet's own key, its public half, and the signed list of members."""
        return self.path / "fleet"

    @property
    def roll(self) -> Path:
        """Who has been enrolled."""
        return self.path / "devices.json"

    @property
    def run_file(self) -> Path:
        """The scenario that `start` runs."""
        return self.path / RUN_FILE

    @property
    def run(self) -> Path:
        """Results, checkpoints and versions of the run."""
        return self.path / "run"

    @property
    def flower(self) -> Path:
        """Everything that Flower writes."""
        return self.path / "flower"

    @property
    def log(self) -> Path:
        return self.path / "superlink.log"


@dataclass(frozen=True, slots=True)
class Settings:
    """What `server.toml` says.

    Parameters
    ----------
    hosts
        Names and addresses under which devices reach the server; the first one goes into their bundles.
    port
        Port at which devices reach it.
    listen
        Where the SuperLink itself listens, ``HOST:PORT``; its loopback side behind a reverse proxy.
    """

    hosts: tuple[str, ...]
    port: int
    listen: str

    @property
    def address(self) -> str:
        """What devices are told."""
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def local(self) -> tuple[str, int]:
        """Host and port for commands on this machine."""
        host, port = check_address(self.listen)
        return ("127.0.0.1" if host in ("0.0.0.0", "::") else host), port


def write_settings(folder: ServerFolder, settings: Settings) -> None:
    """Write what `read_settings` reads."""
    lines = [
        f"hosts = {json.dumps(list(settings.hosts))}",
        f"port = {settings.port}",
        f"listen = {json.dumps(settings.listen)}",
    ]
    write_whole(folder.path / SETTINGS, ("\n".join(lines) + "\n").encode())


def read_settings(folder: ServerFolder) -> Settings:
    """Read what `write_settings` has written.

    Raises
    ------
    ConfigError
        If it is none, or its settings cannot be used.
    """
    file = folder.path / SETTINGS
    try:
        values = tomllib.loads(file.read_text(encoding="utf-8"))
        settings = Settings(tuple(values["hosts"]), int(values["port"]), str(values["listen"]))
        check_address(settings.listen)
        check_address(settings.address)
    except OSError as error:
        raise ConfigError(f"{folder.path} is no server's folder: make one with `fedoel server init`") from error
    except (tomllib.TOMLDecodeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise ConfigError(f"{file} cannot be used ({error}): it needs hosts, port and listen") from error
    return settings
