"""The folder of a server, with its keys, its list of devices, its run and Flower's files."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path

import tomli_w

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.fleet.enrolment import check_address
from ...protocol.host.files import write_whole
from ...protocol.settings import read_toml
from ..fleet import OWNER_KEY
from ..run_folder import STORED, stored_config
from ..safeguards import LEDGER
from .roll import Roll

SETTINGS, RUN_FILE = "server.toml", "run.toml"
# A device says after 25 s at most that it lives, and tries again after 20 s at most where nobody listens.
RECONNECT_SECONDS, MOST_RECONNECT_SECONDS = 60.0, 86_400.0
LOOPBACK_OF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # a server that listens on all IPv6 addresses has none of IPv4


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
    def next_ca_key(self) -> Path:
        """Key of the next authority; there while the fleet changes from one to the other."""
        return self.path / "ca-next.key"

    @property
    def next_ca_bundles(self) -> Path:
        """Numbers of the devices for which a bundle with the next authority was written."""
        return self.path / "ca-next.json"

    @property
    def retired(self) -> Path:
        """Folder of the keys and certificates that are no longer used."""
        return self.path / "retired"

    @property
    def certificate(self) -> Path:
        return self.path / "server.crt"

    @property
    def key(self) -> Path:
        return self.path / "server.key"

    @property
    def fleet(self) -> Path:
        """Folder of the owner's key pair and the signed list of members."""
        return self.path / "fleet"

    @property
    def roll(self) -> Path:
        """File with the list of enrolled devices."""
        return self.path / "devices.json"

    @property
    def run_file(self) -> Path:
        """Scenario file of the run that `start` runs."""
        return self.path / RUN_FILE

    @property
    def first_pack(self) -> Path:
        """The pack of prompts that `init` makes, which `run.toml` names."""
        return self.path / "pack.jsonl"

    @property
    def prompts(self) -> Path:
        """The run's own copy of its pack of prompts, if its server has no games."""
        return self.path / "prompts.jsonl"

    @property
    def run(self) -> Path:
        """Folder of the run: results, checkpoints and versions."""
        return self.path / "run"

    @property
    def flower(self) -> Path:
        """Folder of the files that Flower writes."""
        return self.path / "flower"

    @property
    def log(self) -> Path:
        return self.path / "superlink.log"

    @property
    def database(self) -> Path:
        """Database of the SuperLink, with everything that it has still to deliver."""
        return self.flower / "superlink.sqlite"

    @property
    def control_secret(self) -> Path:
        """What the SuperLink's control API asks for; made anew when it starts."""
        return self.flower / "control.secret"

    @property
    def runtime_secret(self) -> Path:
        """What the SuperLink asks the process for that starts its tasks; made anew when it starts."""
        return self.flower / "runtime.secret"

    @property
    def lock(self) -> Path:
        """Locked by `start` for as long as it runs."""
        return self.path / "server.lock"

    @property
    def roll_lock(self) -> Path:
        """Locked while devices are enrolled or revoked, or certificates are made."""
        return self.path / "devices.lock"

    @property
    def private(self) -> tuple[Path, ...]:
        """Folders and files to which nobody but their owner may have access, as far as they exist."""
        databases = self.flower.glob(f"{self.database.name}*")  # it has journals beside it
        return (
            self.path, self.fleet, self.flower, self.run, self.retired, self.key, self.ca_key, self.next_ca_key,
            self.fleet / OWNER_KEY, self.run / LEDGER, *self.retired.glob("*.key"), *databases,
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class Settings:
    """The settings in `server.toml`.

    Parameters
    ----------
    hosts
        Host names and addresses of the server in its certificate; devices connect to the first.
    port
        Port to which devices connect.
    listen
        Address on which the SuperLink listens, ``HOST:PORT``. Behind a reverse proxy it differs from the above.
    reconnect
        Seconds for which a server that is started again waits for the devices that were connected when it ended.
    """

    hosts: tuple[str, ...]
    port: int
    listen: str
    reconnect: float = RECONNECT_SECONDS

    @property
    def address(self) -> str:
        """The address to which devices connect."""
        host = self.hosts[0]
        return f"[{host}]:{self.port}" if ":" in host else f"{host}:{self.port}"

    @property
    def local(self) -> tuple[str, int]:
        """Host and port of the SuperLink for commands on the same machine."""
        host, port = check_address(self.listen)
        return LOOPBACK_OF.get(host, host), port


def write_settings(folder: ServerFolder, settings: Settings) -> None:
    """Write the settings to `server.toml`."""
    write_whole(folder.path / SETTINGS, tomli_w.dumps(asdict(settings)).encode())


def read_settings(folder: ServerFolder) -> Settings:
    """Read the settings of a server's folder.

    Raises
    ------
    ConfigError
        If it is not a server's folder, or its settings are malformed.
    """
    file = folder.path / SETTINGS
    if not file.exists():
        raise ConfigError(f"{folder.path} is not a server's folder: make one with `fedoel server init`")
    values = read_toml(file)
    try:
        reconnect = float(values.get("reconnect", RECONNECT_SECONDS))
        settings = Settings(tuple(values["hosts"]), int(values["port"]), str(values["listen"]), reconnect)
        check_address(settings.listen)
        check_address(settings.address)
        if not 0 <= reconnect <= MOST_RECONNECT_SECONDS:
            raise ValueError(f"reconnect = {reconnect:g} is not between 0 and {MOST_RECONNECT_SECONDS:.0f} seconds")
    except (KeyError, TypeError, ValueError, IndexError, OverflowError) as error:
        raise ConfigError(f"{file} cannot be used ({error}): it needs hosts, port and listen") from error
    return settings


def read_run(folder: ServerFolder) -> RunConfig:
    """Read `run.toml`, whose paths are relative to the folder; the number of clients is not set.

    Raises
    ------
    ConfigError
        If the file cannot be read, or a setting is unknown or invalid.
    """
    values = {"name": "fleet", **read_toml(folder.run_file)}
    try:
        config = RunConfig.from_nested(values)
    except ConfigError as error:
        raise ConfigError(f"{folder.run_file}: {error}") from error

    def absolute(path: str) -> str:
        return str((folder.path / path).absolute()) if path else ""

    return replace(
        config, out=str(folder.run), policy=replace(config.policy, base=absolute(config.policy.base)),
        privacy=replace(config.privacy, keys=str(folder.fleet)), resume=True,
        server=replace(
            config.server, prompts=absolute(config.server.prompts), red_lines=absolute(config.server.red_lines)
        ),
    )  # fmt: skip


def run_of(folder: ServerFolder, roll: Roll) -> RunConfig:
    """Return the configuration of the run to start or to resume.

    The number of clients is fixed when the run begins, because the privacy plan depends on it. Devices that join later
    take part, but do not change the plan. A run that has begun reads its own copy of its pack of prompts.
    """
    begun = (folder.run / STORED).exists()
    clients = stored_config(folder.run).clients if begun else max(len(roll.active), 1)
    config = replace(read_run(folder), clients=clients)
    return with_own_prompts(folder, config) if begun else config


def with_own_prompts(folder: ServerFolder, config: RunConfig) -> RunConfig:
    """Return the configuration with the copy of the pack of prompts in the folder, if the server has no games."""
    if config.server.public != "prompts":
        return config
    return replace(config, server=replace(config.server, prompts=str(folder.prompts)))
