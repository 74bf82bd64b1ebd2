"""Where a run and the keys of its fleet are, given the folder of a simulation's run or of a fleet's server."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.fleet.membership import FLEET_KEY, keys_folder, read_fleet_key
from .journal import Journal, open_journal
from .operate.folder import SETTINGS, ServerFolder
from .registry import VERSIONS
from .run_folder import STORED, stored_config


@dataclass(frozen=True, slots=True)
class RunLocation:
    """A run on disk.

    Parameters
    ----------
    run
        Its folder.
    keys
        Folder of the fleet's keys.
    """

    run: Path
    keys: Path

    @property
    def config(self) -> RunConfig:
        """The configuration of the run; raises as `stored_config`."""
        return replace(stored_config(self.run), out=str(self.run))

    @property
    def versions(self) -> Path:
        """Folder of the run's versions."""
        return self.run / VERSIONS

    @property
    def fleet_key(self) -> bytes:
        """The fleet's public key.

        Raises
        ------
        ConfigError
            If it is missing or malformed.
        """
        try:
            return read_fleet_key(self.keys)
        except (OSError, ValueError) as error:
            raise ConfigError(f"{self.keys / FLEET_KEY} holds no key ({error}): put the fleet's key there") from error

    def journal(self) -> Journal:
        """Return the run's journal, which may not exist yet."""
        return Journal(self.run, self.keys)

    def opened_journal(self) -> Journal:
        """Return the run's journal, which is begun if there is none."""
        return open_journal(self.run, self.keys)


def locate(folder: Path) -> RunLocation:
    """Find the run in a folder, which is a run's own or that of a fleet's server.

    Raises
    ------
    ConfigError
        If there is no run in it.
    """
    folder = folder.absolute()
    if (folder / SETTINGS).exists():
        server = ServerFolder(folder)
        if not (server.run / STORED).exists():
            raise ConfigError(f"the server in {folder} has not begun a run: fedoel server start")
        return RunLocation(server.run, server.fleet)
    if not (folder / STORED).exists():
        raise ConfigError(f"{folder} is neither the folder of a run nor that of a server: it has no {STORED}")
    return RunLocation(folder, keys_folder(replace(stored_config(folder), out=str(folder))))
