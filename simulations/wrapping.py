"""A runtime of simulated devices whose policies are wrapped: to batch their calls, or to record them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

from ..client.runtime import Runtime, SimulatedRuntime
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.fleet.membership import Membership
from ..protocol.messages import PlayRequest


@dataclass(frozen=True, slots=True)
class WrappingRuntime(SimulatedRuntime):
    """A runtime whose policies are those of another one, each in a wrapper."""

    inner: Runtime
    wrap: Callable[[Policy], Policy]
    _loading: Lock = field(default_factory=Lock)

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Return the requested policy in its wrapper."""
        with self._loading:  # clients call concurrently, and a batch needs the identical policy object
            return self.wrap(self.inner.policy(config, request))

    def cache(self, config: RunConfig) -> Path:
        """Return the folder of compiled games and converted models."""
        return self.inner.cache(config)

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Return a device's keys and the list of members."""
        return self.inner.membership(config, client)

    def game_secret(self, client: int, run: str) -> int | None:
        """Return what a client's games are drawn with."""
        return self.inner.game_secret(client, run)
