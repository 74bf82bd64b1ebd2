"""The default engine: server and clients in one process, with the games of all clients batched through one policy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Event, Lock

from flwr.clientapp import ClientApp

from ..client.app import make_app, private_games
from ..client.runtime import Runtime, SimulatedRuntime
from ..games.partition import check_private_games
from ..games.prepare import prepare
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.fleet.membership import Membership
from ..protocol.host.cache import cache_folder
from ..protocol.messages import PlayRequest
from ..protocol.play import GameId
from ..protocol.records.events import Listener
from ..server.app import MakeGate, run, the_same
from ..server.app import check as check_server
from ..server.public.world_of_games import report
from .batching import Batcher
from .grid import InProcessGrid, server_identity
from .prompts import with_any_pack, with_pack


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


def check(config: RunConfig) -> None:
    """Raise `ConfigError` for a configuration that no engine can run."""
    if config.policy.backend == "llama" and importlib.util.find_spec("llama_cpp") is None:
        raise ConfigError("policy.backend 'llama' needs llama.cpp, which is not installed: make setup LLAMA=1")
    games = config.games
    check_private_games(games.per_client, config.clients, config.cycles, games.amounts, config.seed)
    check_server(with_any_pack(config), cache_folder(config))


def run_inprocess(
    config: RunConfig,
    listener: Listener | None = None,
    runtime: Runtime | None = None,
    *,
    make: Callable[[Runtime], ClientApp] = make_app,
    present: Sequence[int] | None = None,
    make_gate: MakeGate = the_same,
) -> None:
    """Run all cycles of a run in this process.

    Parameters
    ----------
    config
        The run's configuration, with one node per client.
    listener
        Called with every event of the run.
    runtime
        Provides policies; by default they are loaded in this process.
    make
        Builds the nodes' ClientApp: by default a device's, or a baseline's.
    present
        The clients that have a node, by default all.
    make_gate
        Given the run's gate, returns what decides whether a context is distilled and a candidate promoted.
    """
    inner, batcher = runtime or SimulatedRuntime(), Batcher()
    cache = inner.cache(config)
    config = with_pack(whole_fleet(config, present), cache)
    check_server(config, cache)
    grid = InProcessGrid(make(WrappingRuntime(inner, batcher.wrap)), config.clients, config.to_flat(), batcher, present)
    with server_identity(), made_ahead(games_ahead(config), cache):
        run(grid, config, cache, listener, engine="inprocess", make_gate=make_gate, make_report=report)


def whole_fleet(config: RunConfig, present: Sequence[int] | None = None) -> RunConfig:
    """Make the run wait for all nodes, so that results do not depend on how fast an engine starts them."""
    nodes = config.clients if present is None else len(present)
    return replace(config, strategy=replace(config.strategy, min_available_nodes=nodes))


def games_ahead(config: RunConfig) -> list[GameId]:
    """Return the games of all clients and cycles in order of cycles; none if only a fraction of the clients plays."""
    if config.strategy.fraction_train < 1:
        return []
    cycles, clients = range(1, config.cycles + 1), range(config.clients)
    return [
        game for cycle in cycles for client in clients for game in private_games(config, cycle, client, len(clients))[0]
    ]


@contextmanager
def made_ahead(games: list[GameId], cache: Path) -> Iterator[None]:
    """Prepare the clients' games in a background thread while the server works.

    An error is not reported here: the client that needs the game prepares it again, and fails with the same error.
    """
    pool, ended = ThreadPoolExecutor(1), Event()

    def check_running(done: int, total: int) -> None:
        if ended.is_set():
            raise InterruptedError("the run has ended")

    pool.submit(prepare, games, cache, 1, check_running)
    try:
        yield
    finally:
        ended.set()
        pool.shutdown()
