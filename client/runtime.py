"""Where a ClientApp runs: in a simulation or on a deployed device. `Runtime` names everything in which the two differ.

A node of either is told by its configuration which client it is and where its store lies; see `fedoel.client.app`.
"""

from __future__ import annotations

import functools
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from flwr.app import ConfigRecord, RecordDict

from ..policies.backend import load_version
from ..policies.policy import Policy
from ..protocol.config import PolicyConfig, RunConfig
from ..protocol.fleet.membership import Membership, keys_folder, simulated_membership
from ..protocol.fleet.notice import Notice
from ..protocol.fleet.trust import Trust
from ..protocol.health import Health
from ..protocol.host.cache import cache_folder
from ..protocol.host.machine import machine_memory, peak_memory
from ..protocol.messages import PlayRequest
from ..protocol.versions import Adapter
from .contributions import Contributions, Unrecorded
from .fallback import Success

SUCCESS = "success"  # name of a record in the node's state


class Runtime(Protocol):
    """What a ClientApp asks of the place where it runs.

    =============== ===================================== ==============================================
    member          `SimulatedRuntime`                    `fedoel.client.device.runtime.DeviceRuntime`
    =============== ===================================== ==============================================
    `deployed`      false                                 true: the server's release may be another one
    `send_words`    true                                  false
    `take_notice`   nothing                               keeps the newest notice of the fleet's owner
    `check_going`   nothing                               refuses everything while that says stop
    `working`       nothing                               leaves a mark if the process dies
    `held_back`     at once                               until the next `play.answer-every`
    `admit`         always                                if the owner's conditions hold
    `begin`         nothing                               counts the games, bounds the memory
    `policy`        as the run says                       base, threads and paths from `device.toml`;
                                                          kept as the last good version
    `cache`         the run's, or the user's              the device's own
    `membership`    a key from the folder of all keys     the device's own key
    `trust`         open, but for the run's `colluding`   from `device.toml`
    `contributions` not written down                      in a file that outlives runs and fleets
    `game_secret`   none: the run's seed decides          from a key of the device
    `success`       in the node's state                   in a file of the device's folder
    `health`        of this process and machine           the same, with deaths and the owner's version;
                                                          nothing unless the owner allows it
    =============== ===================================== ==============================================
    """

    @property
    def deployed(self) -> bool:
        """Whether this is a machine of its own, whose server may have another release."""

    @property
    def send_words(self) -> bool:
        """Whether a codec that sends text may run here at all. The run must allow it, too."""

    def take_notice(self, notice: Notice | None) -> int:
        """Take in the notice that came with a message, if there was one, and return the number of the newest, or 0.

        Raises
        ------
        VersionError
            If it is not signed by the fleet's key, or older than the newest.
        """

    def check_going(self) -> None:
        """Raise `TrustError` while the newest notice says stop."""

    def working(self) -> AbstractContextManager[None]:
        """Return a block for the work on one message, in which a death of the process is noticed later."""

    def held_back(self) -> AbstractContextManager[None]:
        """Return a block for a request to play, which ends when its answer may leave."""

    def admit(self, games: int) -> None:
        """Check, before anything is loaded, that this many games may be played now.

        Raises
        ------
        NotNow
            If a condition of the device's owner does not hold.
        """

    def begin(self, games: int) -> None:
        """Prepare for games that are about to be played.

        Raises
        ------
        NotNow
            If the games cannot be counted.
        """

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Load the policy version of a request; raises what `fedoel.policies.backend.load_version` raises."""

    def cache(self, config: RunConfig) -> Path:
        """Return the folder for compiled games and converted models."""

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Read the client's private key and the list of members; raises `ConfigError` if they cannot be used."""

    def trust(self, config: RunConfig) -> Trust:
        """Return what the device answers, whatever a request says."""

    @property
    def contributions(self) -> Contributions:
        """Where the device writes down what it gives and what it refuses."""

    def game_secret(self, client: int, run: str) -> int | None:
        """Return what a client's games of a run are drawn with; None for what the run itself says."""

    def success(self, state: RecordDict) -> Success:
        """Read how well the device did with its last two versions; nothing if that is damaged or was not kept."""

    def keep_success(self, state: RecordDict, success: Success) -> None:
        """Keep what `success` reads, on this device only."""

    def health(self, state: RecordDict, request: PlayRequest, pace: float | None) -> Health | None:
        """Return how the device is, for its answer to a trial; None if it does not tell.

        Parameters
        ----------
        pace
            Seconds per turn of what it has played for the trial.
        """


@dataclass(frozen=True, slots=True)
class SimulatedRuntime:
    """The runtime of a simulated device. It has no state, because Ray sends it to a worker with every message."""

    deployed: ClassVar[bool] = False
    send_words: ClassVar[bool] = True

    def take_notice(self, notice: Notice | None) -> int:
        """Return 0: a simulation has no notices."""
        return 0

    def check_going(self) -> None:
        """Do nothing: a simulation is not stopped by a notice."""

    def working(self) -> AbstractContextManager[None]:
        """Do nothing: a simulation has one process for many devices."""
        return nullcontext()

    def held_back(self) -> AbstractContextManager[None]:
        """Do nothing: a simulation does not wait."""
        return nullcontext()

    def admit(self, games: int) -> None:
        """Admit every request."""

    def begin(self, games: int) -> None:
        """Do nothing: a simulated device has no quota."""

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Load the policy version of a request with the run's backend; raises what `load_version` raises."""
        version, exchange = request.spec.policy_version, (request.cycle, request.exchange)
        if config.policy.backend in ("torch", "llama"):
            return _last_loaded(_VersionKey(config.policy, version, exchange, self.cache(config), request.adapter))
        return load_version(config.policy, request.adapter, version, self.cache(config))

    def cache(self, config: RunConfig) -> Path:
        """Return the run's cache folder, or the user's."""
        return cache_folder(config)

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Read the client's key from the folder that holds the keys of all simulated devices."""
        return simulated_membership(keys_folder(config), client)

    def trust(self, config: RunConfig) -> Trust:
        """Return open settings: everything is answered, and the run says who may collude."""
        return Trust(colluding=config.privacy.colluding)

    @property
    def contributions(self) -> Contributions:
        """Write nothing down: a simulation is repeated at will."""
        return Unrecorded()

    def game_secret(self, client: int, run: str) -> int | None:
        """Return None: a simulation's games follow from its seed."""
        return None

    def success(self, state: RecordDict) -> Success:
        """Read the node's state, which ends with the simulation."""
        record = state.get(SUCCESS)
        return Success.from_values(record) if isinstance(record, ConfigRecord) else Success()

    def keep_success(self, state: RecordDict, success: Success) -> None:
        """Write to the node's state."""
        state[SUCCESS] = ConfigRecord(success.to_values())

    def health(self, state: RecordDict, request: PlayRequest, pace: float | None) -> Health | None:
        """Measure this machine and this process, which plays for all devices; no device ever dies."""
        return measured(False, self.success(state).kept != request.spec.policy_version, pace)


def measured(died: bool, behind: bool, pace: float | None) -> Health | None:
    """Return how a device on this machine is; None if the system does not tell how large the machine is."""
    machine = machine_memory()
    return None if machine is None else Health(machine, died, behind, pace, peak_memory())


@dataclass(frozen=True, slots=True)
class _VersionKey:
    """What identifies a loaded policy. The version is a hash of base, prompt and adapter: the adapter is not compared.

    Each exchange loads the policy anew, even of the same version, so that the content of its prefix cache does not
    depend on whether the run was resumed in between.
    """

    config: PolicyConfig
    version: str
    exchange: tuple[int, int]
    cache: Path
    adapter: Adapter = field(compare=False)


@functools.lru_cache(maxsize=2)
def _last_loaded(key: _VersionKey) -> Policy:
    """Keep the last policies of a process, two for a trial: a worker plays for one client after the other."""
    return load_version(key.config, key.adapter, key.version, key.cache)


def forget_policies() -> None:
    """Drop the last loaded policies and the scenes that they keep; base models stay."""
    _last_loaded.cache_clear()
