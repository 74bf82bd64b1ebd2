"""The server's Flower app: builds the parts of a run and lets the strategy turn its cycles."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ..codecs.codec import check_codec
from ..codecs.encoder import Encoder, SendsWords
from ..policies.backend import load_backend
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.fleet.membership import RunMode, keys_folder
from ..protocol.host.cache import cache_folder, expanded
from ..protocol.records.events import Listener
from ..protocol.secagg.graph import COLLUDING
from ..strategies.experience import ExperienceStrategy
from ..strategies.registry import build_strategy, load_strategy
from ..strategies.secure_mean import SecureMean
from ..strategies.stopped import wait_while_stopped
from .cycle.answers import check_bounds
from .cycle.run import Report, Run, World
from .cycle.server import CycleServer
from .events import LOG, EventLog
from .fleet import make_fleet
from .fleet_gate import FleetGate
from .gate import Gate
from .journal import has_begun
from .learner import Divided, Workers
from .learner_registry import make_learner
from .red_lines import RedLines, joined, read_red_lines
from .safeguards import RunSafeguards

MakeGate = Callable[[Gate], Gate]
MakeReport = Callable[[RunConfig, Path], Report]


def the_same(gate: Gate) -> Gate:
    """Return the gate of a run's configuration."""
    return gate


def run(
    grid: Grid,
    config: RunConfig,
    cache: Path,
    listener: Listener | None = None,
    engine: str = "",
    make_gate: MakeGate = the_same,
    make_report: MakeReport | None = None,
    workers: Workers | None = None,
) -> None:
    """Run every cycle of a run.

    Parameters
    ----------
    grid
        Where the clients are.
    config
        The run; `config.out` must be an absolute path.
    cache
        Folder for compiled games and converted models.
    listener
        Called with every event as it happens.
    engine
        What the summary says about where the clients ran; by default the name of the grid's class.
    make_gate
        Given the run's gate, returns what decides whether a context is distilled and a candidate promoted.
    make_report
        Makes what measures versions in a simulation; by default, a server with prompts only reports what its fleet
        says.
    workers
        Processes that compute the steps of training; by default, this one does.

    Raises
    ------
    ConfigError
        If the run cannot be what its configuration says.
    """
    strategy, server = prepare(config, cache, listener, engine or type(grid).__name__, make_gate, make_report, workers)
    with server.run.log:  # from here on, no other process plays this run
        if RunMode.of(config) is RunMode.SIMULATION:  # a deployment's keys exist before its runs
            make_fleet(keys_folder(config), config.clients, begun=has_begun(server.run.folder))
        else:
            server.run.log.hold = partial(wait_while_stopped, grid, server.safeguards)
        strategy.start(grid, num_rounds=config.cycles)
        server.end()


def check(config: RunConfig, cache: Path) -> None:
    """Refuse a run that cannot be what its configuration says, before any work; raises as `prepare` does."""
    prepare(config, cache)


def prepare(
    config: RunConfig,
    cache: Path,
    listener: Listener | None = None,
    engine: str = "",
    make_gate: MakeGate = the_same,
    make_report: MakeReport | None = None,
    workers: Workers | None = None,
) -> tuple[ExperienceStrategy, CycleServer]:
    """Build the parts of a run, and do none of its work.

    Raises
    ------
    ConfigError
        If the run cannot be what its configuration says.
    ModelError
        If the base model is not there.
    """
    if not config.out or not Path(config.out).is_absolute():
        raise ConfigError(f"out must be the absolute path of a folder for results, not {config.out!r}")
    codec = check_codec(config, load_backend(config.policy.backend).abilities)
    world = _world(config, cache)
    if config.server.public == "prompts":
        _check_contexts(config, codec.encoder)
    kind = load_strategy(config.strategy.name)
    _check_words(config, codec.encoder, kind)
    check_bounds(config)
    if config.privacy.mechanism not in kind.mechanisms:
        raise ConfigError(
            f"privacy.mechanism {config.privacy.mechanism!r} and strategy {config.strategy.name!r} do not go together: "
            f"it works with {', '.join(sorted(kind.mechanisms))}; 'distributed' noise needs 'secure-mean', "
            "'central' noise 'central-mean' and 'local' noise 'local-mean'"
        )
    _check_colluding(config, kind)
    learner = make_learner(config, cache)
    if workers is not None and isinstance(learner, Divided):
        learner.use(workers)
    parts = Run(
        config, world.plan, codec, learner, world.public, make_gate(world.gate),
        make_report(config, cache) if make_report else world.report, RunSafeguards(config),
        EventLog(Path(config.out) / LOG, listener), cache, engine, secure=issubclass(kind, SecureMean),
        red_lines=_red_lines(config, world),
    )  # fmt: skip
    server = CycleServer(parts)
    strategy = build_strategy(config.strategy, server, config.seed, world.gate.blocks)
    if strategy.needs_games and config.server.public != "games":
        raise ConfigError(
            f"strategy.name {config.strategy.name!r} compares devices with what the server learns from games of its "
            'own: set server.public = "games"'
        )
    strategy.check(parts.spec(""))
    if isinstance(world.gate, FleetGate):
        strategy.check(world.gate.spec(""))
    return strategy, server


def _world(config: RunConfig, cache: Path) -> World:
    """Build what depends on what the server has of the world; games are imported where it has some, only."""
    if config.server.public == "games":
        from .public.world_of_games import world
    else:
        from .public.world_of_prompts import world
    return world(config, cache)


def _red_lines(config: RunConfig, world: World) -> RedLines | None:
    """Return the operator's and the families' red lines, if any, and check that the run's prompts can watch them."""
    operators = read_red_lines(expanded(config.server.red_lines)) if config.server.red_lines else ()
    lines = joined(operators, world.red_lines)
    if not lines:
        return None
    writes = config.policy.decoding == "free"
    red_lines = RedLines(lines, world.public.situations, world.public.unlisted, writes, config.seed)
    if config.server.public == "prompts":  # games would have to be played for that
        red_lines.check()
    return red_lines


def _check_colluding(config: RunConfig, strategy: type[ExperienceStrategy]) -> None:
    """Refuse secure sums that the devices of a deployment refuse, which assume colluding devices on their own."""
    if not issubclass(strategy, SecureMean) or RunMode.of(config) is RunMode.SIMULATION:
        return
    if config.privacy.colluding < COLLUDING:
        raise ConfigError(
            f"privacy.colluding is {config.privacy.colluding:g}, and devices refuse a secure sum that is not safe from "
            "a third of its cohort: leave it out, or set it to 1/3 or more"
        )


def _check_contexts(config: RunConfig, encoder: Encoder) -> None:
    """Refuse several contexts at once, and contexts that devices cannot try or a privacy budget does not pay for."""
    if isinstance(encoder, SendsWords) and config.context.lists > 1:
        raise ConfigError(
            f"codec.name {config.codec.name!r} with context.lists {config.context.lists} gives several contexts at "
            'once, which need server.public = "games": set that, or context.lists = 1'
        )
    if not config.trial.contexts:
        return
    remedy = "set trial.contexts = false, so that only what was distilled is tried"
    if isinstance(encoder, SendsWords):
        raise ConfigError(f"codec.name {config.codec.name!r} has contexts in words, which no trial sends: {remedy}")
    if config.privacy.epsilon and getattr(encoder, "blocks", {}):
        raise ConfigError(
            f"codec.name {config.codec.name!r} tries several contexts in a cycle, which privacy.epsilon does not pay "
            f"for: {remedy}"
        )


def _check_words(config: RunConfig, encoder: Encoder, strategy: type[ExperienceStrategy]) -> None:
    """Refuse words that a run does not allow, or that would get lost on their way."""
    name = config.codec.name
    if not isinstance(encoder, SendsWords):
        if config.privacy.allow_plaintext:
            raise ConfigError(f"codec.name {name!r} sends no words: leave privacy.allow-plaintext out")
        return
    if not config.privacy.allow_plaintext:
        raise ConfigError(
            f"codec.name {name!r} sends words about what happened on devices, and nothing hides them: set "
            "privacy.allow-plaintext if that is meant"
        )
    if not strategy.carries_words or config.strategy.exchanges > 1:
        raise ConfigError(f"codec.name {name!r} needs strategy.name 'mean' and strategy.exchanges 1")


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run config says."""
    config = RunConfig.from_flat(context.run_config)
    run(grid, config, cache_folder(config), engine="flower")
