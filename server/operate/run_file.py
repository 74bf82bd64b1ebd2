"""The run of a server: its scenario file, with the paths of the server's folder."""

from __future__ import annotations

from dataclasses import replace

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.settings import read_toml
from ..run_folder import STORED, stored_config
from .folder import ServerFolder
from .roll import Roll


def read_run(folder: ServerFolder) -> RunConfig:
    """Read what `run.toml` says, without the devices.

    Raises
    ------
    ConfigError
        If it cannot be read, or holds an unknown or unusable setting.
    """
    values = {"name": "fleet", **read_toml(folder.run_file)}
    try:
        config = RunConfig.from_nested(values)
    except ConfigError as error:
        raise ConfigError(f"{folder.run_file}: {error}") from error
    base = str((folder.path / config.policy.base).absolute()) if config.policy.base else ""
    return replace(
        config, out=str(folder.run), policy=replace(config.policy, base=base),
        privacy=replace(config.privacy, keys=str(folder.fleet)), resume=True,
    )  # fmt: skip


def run_of(folder: ServerFolder, roll: Roll) -> RunConfig:
    """Return the run to start or to go on with.

    The fleet's size is that when the run began, since a privacy plan is made for it: who joins later takes part, but
    changes no promise.
    """
    begun = (folder.run / STORED).exists()
    clients = stored_config(folder.run).clients if begun else max(len(roll.active), 1)
    return replace(read_run(folder), clients=clients)
