"""The configuration of a fleet that is audited: a deployed one, of which nothing is touched, or that of a scenario."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from ...protocol.config import RunConfig, Scalar
from ...server.operate.folder import ServerFolder, read_settings, run_of
from ...server.operate.roll import read_roll


def config_of_fleet(folder: Path, overrides: Mapping[str, Scalar] | None = None) -> RunConfig:
    """Return the configuration of the run that a server's folder starts or resumes, as that of a simulation.

    It has as many clients as the run has begun with; before that, as many as are enrolled, and at least as many as the
    run waits for. It names no keys: attacked devices get keys of their own.

    Parameters
    ----------
    overrides
        Flat settings that win over those of the folder.

    Raises
    ------
    ConfigError
        If it is no server's folder, its run cannot be read, or an overriding setting is unknown or unusable.
    """
    server = ServerFolder(folder.absolute())
    read_settings(server)
    config = run_of(server, read_roll(server.roll))
    config = replace(
        config, clients=max(config.clients, config.strategy.min_available_nodes), resume=False,
        privacy=replace(config.privacy, keys=""),
    )  # fmt: skip
    return RunConfig.from_flat({**config.to_flat(), **(overrides or {})})


def as_fleet(config: RunConfig) -> RunConfig:
    """Return a scenario's configuration as that of a fleet which waits for all of the scenario's clients.

    What devices are proposed follows from the fewest nodes that a run waits for, and a simulation waits for nobody.
    """
    nodes = max(config.strategy.min_available_nodes, config.clients)
    return replace(config, strategy=replace(config.strategy, min_available_nodes=nodes))
