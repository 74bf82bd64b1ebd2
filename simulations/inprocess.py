"""The default engine: server and clients in one process or a few, with the games of many clients in one batch."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from itertools import islice
from pathlib import Path
from threading import Event

from flwr.clientapp import ClientApp

from ..client.app import make_app, private_games
from ..client.runtime import Runtime, SimulatedRuntime
from ..games.families import family_of
from ..games.partition import check_private_games, mixture
from ..games.prepare import prepare
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.host.cache import cache_folder
from ..protocol.host.files import check_place
from ..protocol.play import GameId, specs_from_text
from ..protocol.records.events import Listener
from ..server.app import MakeGate, run, the_same
from ..server.app import check as check_server
from ..server.app import prepare as prepare_server
from ..server.run_plan import RunPlan
from .divided_games import divided_report
from .divided_grid import Devices, DividedGrid
from .grid import server_identity
from .needs import check_needs
from .prompts import check_pack, makes_pack, with_any_pack, with_pack
from .workers import Workers

MADE_AT_ONCE = 500  # games that are prepared ahead before more of them are looked up


def check(config: RunConfig, processes: int = 1) -> None:
    """Raise `ConfigError` for a configuration that no engine can run, or that needs more than this machine has."""
    if config.policy.backend == "llama" and importlib.util.find_spec("llama_cpp") is None:
        raise ConfigError("policy.backend 'llama' needs llama.cpp, which is not installed: make setup LLAMA=1")
    games, plan = config.games, RunPlan.of(config)
    check_private_games(games.per_client, config.clients, config.cycles, games.amounts, config.seed)
    mixture(plan.specs, 0, config.clients, games.partition, config.seed)
    cache = cache_folder(config)
    check_place(cache, "cache")
    if config.privacy.keys:
        raise ConfigError(
            f"privacy.keys {config.privacy.keys!r} are keys of a deployed fleet: leave it out of a simulation, which "
            "makes keys of its own"
        )
    _, server = prepare_server(with_any_pack(config), cache)
    check_place(cache, "cache", writable=makes_pack(config, cache))  # before the run has a folder
    check_pack(config, cache)
    check_needs(config, server.run.spec("").size, processes)


def run_inprocess(
    config: RunConfig,
    listener: Listener | None = None,
    runtime: Runtime | None = None,
    *,
    make: Callable[[Runtime], ClientApp] = make_app,
    present: Sequence[int] | None = None,
    make_gate: MakeGate = the_same,
    processes: int = 1,
) -> None:
    """Run all cycles of a run in this process, and in workers of it.

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
    processes
        How many processes play, encode, measure and train. Results do not depend on it. With more than one, `make` and
        `runtime` must be picklable.
    """
    runtime = runtime or SimulatedRuntime()
    cache = runtime.cache(config)
    config = with_pack(whole_fleet(config, present), cache)
    check_server(config, cache)
    with Workers(processes) as workers, server_identity(), made_ahead(games_ahead(config), cache):
        grid = DividedGrid(Devices.of(config, make, runtime), config, workers, present)
        run(
            grid, config, cache, listener, engine="inprocess", make_gate=make_gate,
            make_report=lambda config, cache: divided_report(config, cache, workers), workers=workers,
        )  # fmt: skip


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
