"""The default engine: server and clients in this process, and all games of all clients through one policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock
from typing import Any

from ..client.app import make_app
from ..client.games.assignment import client_games
from ..client.games.prepare import GameId, prepare
from ..client.membership import Membership
from ..client.policy.policy import Policy
from ..client.runtime import LocalRuntime, Runtime
from ..protocol.config import RunConfig
from ..protocol.messages import PlayRequest
from ..protocol.play import specs_from_text
from ..server.app import check, run
from .batching import Batcher
from .grid import InProcessGrid
from .identity import server_identity

Listener = Callable[[dict[str, Any]], None]


@dataclass(frozen=True, slots=True)
class BatchingRuntime:
    """A runtime whose policies answer all clients together. Calls from outside of a client go straight through."""

    inner: Runtime
    batcher: Batcher
    _loading: Lock = field(default_factory=Lock)

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        """Return the policy that is asked to play, behind the barrier."""
        with self._loading:  # clients ask all at once, and one batch needs one and the same policy
            return self.batcher.wrap(self.inner.policy(config, request))

    def cache(self, config: RunConfig) -> Path:
        """Return the folder for compiled games and converted models."""
        return self.inner.cache(config)

    def membership(self, config: RunConfig, client: int) -> Membership:
        """Return what makes a device a member of the fleet."""
        return self.inner.membership(config, client)


def run_inprocess(config: RunConfig, listener: Listener | None = None, runtime: Runtime | None = None) -> None:
    """Run every cycle of a run in this process.

    Parameters
    ----------
    config
        The run; `config.clients` nodes take part.
    listener
        Called with every event of the run as it happens.
    runtime
        Where policies come from; by default they are loaded here.
    """
    config, inner, batcher = whole_fleet(config), runtime or LocalRuntime(), Batcher()
    check(config, inner)
    grid = InProcessGrid(make_app(BatchingRuntime(inner, batcher)), config.clients, config.to_flat(), batcher)
    with server_identity(), made_ahead(private_games(config), inner.cache(config)):
        run(grid, config, inner, listener, engine="inprocess")


def whole_fleet(config: RunConfig) -> RunConfig:
    """Make the run wait for all of its clients: engines differ in how fast nodes appear, results must not."""
    return replace(config, strategy=replace(config.strategy, min_available_nodes=config.clients))


def private_games(config: RunConfig) -> list[GameId]:
    """Return every client's games of every cycle, those of the first cycle first; none where only some will play."""
    if config.strategy.fraction_train < 1:
        return []
    specs, games = specs_from_text(config.games.families), config.games
    return [
        game
        for cycle in range(1, config.cycles + 1)
        for client in range(config.clients)
        for game in client_games(specs, client, config.clients, games.per_client, cycle, games.partition, config.seed)
    ]


@contextmanager
def made_ahead(games: list[GameId], cache: Path) -> Iterator[None]:
    """Make the clients' games beside the server's work, so that a client finds its own ready when it plays.

    Clients make what is missing themselves, so an error here is theirs to report.
    """
    pool = ThreadPoolExecutor(1)
    stop: list[bool] = []

    def go_on(done: int, total: int) -> None:
        if stop:
            raise InterruptedError("the run has ended")

    pool.submit(prepare, games, cache, 1, go_on)
    try:
        yield
    finally:
        stop.append(True)
        pool.shutdown()
