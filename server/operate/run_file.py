"""The configuration of a server's run: the scenario file `run.toml`, with the paths of the server's folder."""

from __future__ import annotations

from dataclasses import replace

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.settings import read_toml
from ..run_folder import STORED, stored_config
from .folder import ServerFolder
from .roll import Roll


def read_run(folder: ServerFolder) -> RunConfig:
    """Read `run.toml`; the number of clients is not set.

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
    base = str((folder.path / config.policy.base).absolute()) if config.policy.base else ""
    return replace(
        config, out=str(folder.run), policy=replace(config.policy, base=base),
        privacy=replace(config.privacy, keys=str(folder.fleet)), resume=True,
    )  # fmt: skip


def run_of(folder: ServerFolder, roll: Roll) -> RunConfig:
    """Return the configuration of the run to start or to resume.

    The number of clients is fixed when the run begins, because the privacy plan depends on it. Devices that join later
    take part, but do not change the plan.
    """
    begun = (folder.run / STORED).exists()
    clients = stored_config(folder.run).clients if begun else max(len(roll.active), 1)
    return replace(read_run(folder), clients=clients)
