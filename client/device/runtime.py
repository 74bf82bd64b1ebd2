"""The runtime of a deployed device: its own keys, cache, model and limits, and whether its owner lets it play now."""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from contextlib import AbstractContextManager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from flwr.app import RecordDict

from ...policies.backend import load_version
from ...policies.policy import Policy
from ...protocol.config import RunConfig
from ...protocol.errors import NotNow
from ...protocol.fleet.membership import Membership
from ...protocol.fleet.notice import Notice
from ...protocol.fleet.trust import Trust
from ...protocol.health import Health
from ...protocol.messages import PlayRequest
from ...protocol.trials import is_trial
from ..fallback import Success
from ..runtime import Runtime, measured
from ..store import key_from_file
from .boundary import held_back
from .deaths import died, working
from .folder import DeviceFolder, membership_of
from .idle import count_games, games_today, look, why_not
from .last_version import keep
from .model import check_model
from .notice import check_going, take_notice
from .record import DeviceRecord
from .settings import read_settings
from .success import fallen_back, owners_version, read_success, write_success


def runtime_of(node_config: Mapping[str, object], otherwise: Runtime) -> Runtime:
    """Return the runtime of a node: that of a deployed device if its configuration names a folder as ``home``."""
    home = node_config.get("home")
    return otherwise if home is None else DeviceRuntime(Path(str(home)))


@dataclass(frozen=True, slots=True)
class DeviceRuntime:
    """A deployed device. Its own settings replace what the server says about paths, threads and hardware.

    Parameters
    ----------
    home
        The device's folder.
    """

    home: Path
    deployed: ClassVar[bool] = True
    send_words: ClassVar[bool] = False

    @property
    def folder(self) -> DeviceFolder:
        return DeviceFolder(self.home)

    def take_notice(self, notice: Notice | None) -> int:
        """Keep a notice of the fleet's owner that is newer than the last one."""
        return take_notice(self.folder, notice)

    def check_going(self) -> None:
        """Refuse everything while the newest notice says stop."""
        check_going(self.folder)

    def working(self) -> AbstractContextManager[None]:
        """Return a block that leaves a mark if the process dies in it."""
        return working(self.folder.working)

    def held_back(self) -> AbstractContextManager[None]:
        """Return a block that is left at a boundary, as the owner's settings say when it is entered."""
        return held_back(read_settings(self.folder.settings).play.answer_every)

    def admit(self, games: int) -> None:
        """Check the owner's conditions; this loads nothing.

        Raises
        ------
        NotNow
            If one of them does not hold.
        """
        settings, now = read_settings(self.folder.settings), look()
        played = games_today(self.folder.played, f"{now.clock:%Y-%m-%d}")
        if reason := why_not(settings.play, settings.limits.memory, now, played, games):
            raise NotNow(reason)

    def begin(self, games: int) -> None:
        """Count games that are about to be played, and bound the process to the owner's memory limit."""
        count_games(self.folder.played, f"{look().clock:%Y-%m-%d}", games)
        if memory := read_settings(self.folder.settings).limits.memory:
            _limit_memory(memory)

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Load the version of a request within the device's limits, and keep it as the last good one.

        Raises
        ------
        ModelError
            If the device's base model is not the fleet's, or what `load_version` raises.
        """
        check_model(self.folder, config)
        policy = load_version(self.own(config).policy, request.adapter, request.spec.policy_version, self.cache(config))
        if not is_trial(request.spec):  # what is tried may never become a version
            keep(self.folder.versions, request, config, drop_last=bool(fallen_back(self.folder)))
        return policy

    def cache(self, config: RunConfig) -> Path:
        """Return the device's own cache folder."""
        return self.folder.cache

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Read the device's own private key and its list of members."""
        return membership_of(self.folder)

    def trust(self, config: RunConfig) -> Trust:
        """Return the owner's settings, whatever the run says."""
        return read_settings(self.folder.settings).trust

    @property
    def contributions(self) -> DeviceRecord:
        """Return the device's own record."""
        return DeviceRecord(self.folder.record)

    def game_secret(self, client: int, run: str) -> int | None:
        """Return 128 bits that nobody but this device can compute; they differ between runs."""
        return secret_of(key_from_file(self.folder.game_key), run)

    def success(self, state: RecordDict) -> Success:
        """Read the device's own file: the node's state ends with its process."""
        return read_success(self.folder.success)

    def keep_success(self, state: RecordDict, success: Success) -> None:
        """Write the device's own file."""
        write_success(self.folder.success, success)

    def health(self, state: RecordDict, request: PlayRequest, pace: float | None) -> Health | None:
        """Return how the device is, if its owner allows it."""
        if not read_settings(self.folder.settings).trust.health:
            return None
        behind = owners_version(self.folder) != request.spec.policy_version
        return measured(died(self.folder.working, f"{request.config} {request.cycle}"), behind, pace)

    def own(self, config: RunConfig) -> RunConfig:
        """Return a run's configuration with the settings that this device decides for itself."""
        settings = read_settings(self.folder.settings)
        policy = replace(config.policy, base=settings.model.file, device="auto", threads=settings.limits.threads)
        return replace(config, policy=policy, cache=str(self.folder.cache), out="")


def secret_of(key: bytes, run: str) -> int:
    """Return 128 bits that follow from a device's key and a run's name."""
    return int.from_bytes(hmac.digest(key, run.encode(), "sha256")[:16], "big")


def _limit_memory(megabytes: int) -> None:
    """Bound what this process may allocate; Flower starts one process per message, so the bound ends with it.

    Memory-mapped files do not count, such as the model of llama.cpp.
    """
    with suppress(ImportError, ValueError, OSError):  # not every system has this limit
        import resource

        _, hard = resource.getrlimit(resource.RLIMIT_DATA)
        wanted = megabytes * 1024 * 1024
        resource.setrlimit(resource.RLIMIT_DATA, (wanted if hard < 0 else min(wanted, hard), hard))
