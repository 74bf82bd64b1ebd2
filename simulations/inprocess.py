"""The default engine: server and clients in one process, with the games of all clients batched through one policy."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from threading import Event, Lock

from flwr.clientapp import ClientApp

from ..client.app import make_app, private_games
from ..client.runtime import Runtime, SimulatedRuntime
from ..games.families import family_of
from ..games.partition import check_private_games, mixture
from ..games.prepare import prepare
from ..policies.policy import Policy
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.fleet.membership import Membership
from ..protocol.host.cache import cache_folder
from ..protocol.host.files import check_place
from ..protocol.messages import PlayRequest
from ..protocol.play import GameId, specs_from_text
from ..protocol.records.events import Listener
from ..server.app import MakeGate, run, the_same
from ..server.app import check as check_server
from ..server.app import prepare as prepare_server
from ..server.public.world_of_games import report
from .batching import Batcher
from .grid import WAVE, InProcessGrid, server_identity
from .needs import check_needs
from .prompts import with_any_pack, with_pack

MADE_AT_ONCE = 500  # games that are prepared ahead before more of them are looked up
ALONE = ("tactics",)  # backends that answer a client as fast alone as together with others


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
    mixture(specs_from_text(games.families), 0, config.clients, games.partition, config.seed)
    check_place(cache_folder(config), "cache")
    if config.privacy.keys:
        raise ConfigError(
            f"privacy.keys {config.privacy.keys!r} are keys of a deployed fleet: leave it out of a simulation, which "
            "makes keys of its own"
        )
    _, server = prepare_server(with_any_pack(config), cache_folder(config))
    check_needs(config, server.run.spec("").size)


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
    alone = config.policy.backend in ALONE
    app, wave = make(inner if alone else WrappingRuntime(inner, batcher.wrap)), 1 if alone else WAVE
    grid = InProcessGrid(app, config.clients, config.to_flat(), batcher, present, wave)
    with server_identity(), made_ahead(games_ahead(config), cache):
        run(grid, config, cache, listener, engine="inprocess", make_gate=make_gate, make_report=report)


def whole_fleet(config: RunConfig, present: Sequence[int] | None = None) -> RunConfig:
    """Make the run wait for all nodes, so that results do not depend on how fast an engine starts them."""
    nodes = config.clients if present is None else len(present)
    return replace(config, strategy=replace(config.strategy, min_available_nodes=nodes))


def games_ahead(config: RunConfig) -> Iterator[GameId]:
    """Return the games of all clients and cycles in order of cycles.

    There are none if only a fraction of the clients plays, or if the games need no preparation.
    """
    if config.strategy.fraction_train < 1:
        return
    if not any(family_of(spec.family).prepares for spec in specs_from_text(config.games.families)):
        return
    for cycle in range(1, config.cycles + 1):
        for client in range(config.clients):
            yield from private_games(config, cycle, client, config.clients)[0]


@contextmanager
def made_ahead(games: Iterator[GameId], cache: Path) -> Iterator[None]:
    """Prepare the clients' games in a background thread while the server works, some at a time.

    An error is not reported here: the client that needs the game prepares it again, and fails with the same error.
    """
    pool, ended = ThreadPoolExecutor(1), Event()

    def check_running(done: int, total: int) -> None:
        if ended.is_set():
            raise InterruptedError("the run has ended")

    def make_all() -> None:
        while some := list(islice(games, MADE_AT_ONCE)):
            prepare(some, cache, 1, check_running)

    pool.submit(make_all)
    try:
        yield
    finally:
        ended.set()
        pool.shutdown()
