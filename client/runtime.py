"""Where a device's policy and files come from, apart from what it does with them."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from numpy.typing import NDArray

from ..games.cache import cache_folder
from ..policies.backend import load_version
from ..policies.policy import Policy
from ..protocol.config import PolicyConfig, RunConfig
from ..protocol.fleet.membership import Membership, keys_folder, load_membership
from ..protocol.messages import PlayRequest

Adapter = Mapping[str, NDArray[Any]]


class Runtime(Protocol):
    """What a ClientApp needs from where it runs."""

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Return the policy that is asked to play."""
        ...

    def cache(self, config: RunConfig) -> Path:
        """Return the folder for compiled games and converted models."""
        ...

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Return what makes a device a member of the fleet."""
        ...


@dataclass(frozen=True, slots=True)
class LocalRuntime:
    """A device, or a worker process of a simulation. It holds nothing: Ray sends it to a worker with every message."""

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Load the policy version of a request with the backend that the run asks for.

        It raises what `load_version` raises.
        """
        version, exchange = request.spec.policy_version, (request.cycle, request.exchange)
        if config.policy.backend in ("torch", "llama"):
            return _kept_version(_Wanted(config.policy, version, exchange, self.cache(config), request.adapter))
        return load_version(config.policy, request.adapter, version, self.cache(config))

    def cache(self, config: RunConfig) -> Path:
        """Return the run's cache folder, or the user's."""
        return cache_folder(config)

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Read the device's keys, by default from where a simulation keeps those of all devices."""
        return load_membership(keys_folder(config), client)


@dataclass(frozen=True, slots=True)
class _Wanted:
    """A policy to load. Its version is a hash of base, prompt and adapter, so the adapter need not be compared.

    A new exchange gets a new policy, even of the same version: what it has cached must not depend on whether the run
    was resumed in between.
    """

    config: PolicyConfig
    version: str
    exchange: tuple[int, int]
    cache: Path
    adapter: Adapter = field(compare=False)


@functools.lru_cache(maxsize=1)
def _kept_version(wanted: _Wanted) -> Policy:
    """Keep the last policy of a process: a simulation's worker plays for one client after the other."""
    return load_version(wanted.config, wanted.adapter, wanted.version, wanted.cache)
