"""The default engine: server and clients in this process, and all games of all clients through one policy."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Lock

from flwr.clientapp import ClientApp

from ..client.app import make_app, private_games
from ..client.runtime import Runtime, SimulatedRuntime
from ..games.prepare import GameId, prepare
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.fleet.membership import Membership
from ..protocol.messages import PlayRequest
from ..protocol.records.events import Listener
from ..server.app import MakeGate, check, run
from ..server.gate import PublicGate
from .batching import Batcher
from .grid import InProcessGrid
from .identity import server_identity


@dataclass(frozen=True, slots=True)
class BatchingRuntime(SimulatedRuntime):
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


def run_inprocess(
    config: RunConfig,
    listener: Listener | None = None,
    runtime: Runtime | None = None,
    *,
    make: Callable[[Runtime], ClientApp] = make_app,
    present: Sequence[int] | None = None,
    make_gate: MakeGate = PublicGate,
) -> None:
    """Run every cycle of a run in this process.

    Parameters
    ----------
    config
        The run; `config.clients` nodes take part.
    listener
        Called with every event of the run as it happens.
    runtime
        Where policies come from; by default they are loaded here.
    make
        Builds the nodes' app: that of a device, or a baseline's.
    present
        The clients whose nodes are there, all by default.
    make_gate
        Builds what decides whether a context is distilled and a candidate promoted.
    """
    config, inner, batcher = whole_fleet(config, present), runtime or SimulatedRuntime(), Batcher()
    cache = inner.cache(config)
    check(config, cache)
    grid = InProcessGrid(make(BatchingRuntime(inner, batcher)), config.clients, config.to_flat(), batcher, present)
    with server_identity(), made_ahead(games_ahead(config), cache):
        run(grid, config, cache, listener, engine="inprocess", make_gate=make_gate)


def whole_fleet(config: RunConfig, present: Sequence[int] | None = None) -> RunConfig:
    """Make the run wait for all of its clients: engines differ in how fast nodes appear, results must not."""
    nodes = config.clients if present is None else len(present)
    return replace(config, strategy=replace(config.strategy, min_available_nodes=nodes))


def games_ahead(config: RunConfig) -> list[GameId]:
    """Return every client's games of every cycle, those of the first cycle first; none where only some will play."""
    if config.strategy.fraction_train < 1:
        return []
    cycles, clients = range(1, config.cycles + 1), range(config.clients)
    return [
        game for cycle in cycles for client in clients for game in private_games(config, cycle, client, len(clients))[0]
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
