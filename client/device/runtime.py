"""The runtime of a device in a fleet: its own keys, cache, model and limits, and whether it plays now."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path

from ...policies.backend import load_version
from ...policies.policy import Policy
from ...protocol.config import RunConfig
from ...protocol.errors import NotNow
from ...protocol.fleet.membership import Membership
from ...protocol.messages import PlayRequest
from .folder import DeviceFolder, membership_of
from .idle import count_games, games_today, look, why_not
from .last_version import keep
from .settings import read_settings


@dataclass(frozen=True, slots=True)
class DeviceRuntime:
    """What a server says about paths, threads and where to compute is not for this machine: its own settings are.

    Parameters
    ----------
    home
        The device's folder.
    """

    home: Path

    @property
    def folder(self) -> DeviceFolder:
        return DeviceFolder(self.home)

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Load the version of a request within the device's limits, and keep it as the last good one."""
        policy = load_version(self.own(config).policy, request.adapter, request.spec.policy_version, self.cache(config))
        keep(self.folder.versions, request, config)
        return policy

    def cache(self, config: RunConfig) -> Path:
        """Return the device's own cache folder."""
        return self.folder.cache

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Read the device's own keys."""
        return membership_of(self.folder)

    def own(self, config: RunConfig) -> RunConfig:
        """Return a run's configuration with what this machine decides itself."""
        settings = read_settings(self.folder.settings)
        policy = replace(config.policy, base=settings.model.file, device="auto", threads=settings.limits.threads)
        return replace(config, policy=policy, cache=str(self.folder.cache), out="")

    def admit(self, games: int) -> None:
        """Refuse to play now, in no time.

        Raises
        ------
        NotNow
            If a condition of the device's owner does not hold.
        """
        settings, now = read_settings(self.folder.settings), look()
        played = games_today(self.folder.played, f"{now.clock:%Y-%m-%d}")
        if reason := why_not(settings.play, settings.limits.memory, now, played, games):
            raise NotNow(reason)

    def begin(self, games: int) -> None:
        """Count games that are about to be played, and take no more memory than the owner allows."""
        count_games(self.folder.played, f"{look().clock:%Y-%m-%d}", games)
        if memory := read_settings(self.folder.settings).limits.memory:
            _limit_memory(memory)


def _limit_memory(megabytes: int) -> None:
    """Bound what this process, which ends with its message, may allocate. Files that are mapped, as llama.cpp maps its
    model, do not count.
    """
    with suppress(ImportError, ValueError, OSError):  # not every system can
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = megabytes * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
