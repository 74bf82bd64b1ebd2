"""The server's Flower app: builds the parts of a run and lets the strategy turn its cycles."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ..client.runtime import LocalRuntime, Runtime, keys_folder
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError, PrivacyError, SecureSumError
from ..protocol.secagg.graph import choose_graph
from ..strategies.budget import BudgetStrategy
from ..strategies.experience import ExperienceStrategy
from ..strategies.noisy_mean import CentralMean, LocalMean
from ..strategies.registry import load_strategy
from ..strategies.secure_mean import SecureMean
from .codecs.codec import load_codec
from .cycle import Cycles
from .events import EventLog
from .exchanges import spec_of
from .fleet import make_fleet
from .learner import Learner, make_learner
from .plan import Plan
from .safeguards import RunSafeguards

Listener = Callable[[dict[str, Any]], None]
# Codecs whose context is more than a tilt, and the backends that can play it.
CONTEXT_BACKENDS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {"tactics-text": ("torch",), "prefix": ("torch",), "steering": ("torch", "llama")}
)
NEEDED: Mapping[str, type[ExperienceStrategy]] = MappingProxyType(
    {"distributed": SecureMean, "central": CentralMean, "local": LocalMean}
)


def run(grid: Grid, config: RunConfig, runtime: Runtime, listener: Listener | None = None, engine: str = "") -> None:
    """Run every cycle of a run.

    Parameters
    ----------
    grid
        Where the clients are.
    config
        The run; `config.out` must be an absolute path.
    runtime
        Where the cache is.
    listener
        Called with every event as it happens.
    engine
        What the summary says about where the clients ran; by default the name of the grid's class.

    Raises
    ------
    ConfigError
        If the run cannot be what its configuration says.
    """
    strategy_class, plan, learner = check(config, runtime)
    cache = runtime.cache(config)
    if not config.privacy.keys:  # a simulation: the fleet is made with the run
        make_fleet(keys_folder(config), config.clients)
    with EventLog(Path(config.out) / "events.jsonl", listener) as log:
        secure = issubclass(strategy_class, SecureMean)
        cycles = Cycles(config, plan, learner, log, cache, engine or type(grid).__name__, secure)
        strategy = strategy_class(
            cycles,
            exchanges=config.strategy.exchanges,
            fraction_train=config.strategy.fraction_train,
            min_available_nodes=config.strategy.min_available_nodes,
            seed=config.seed,
        )
        strategy.start(grid, num_rounds=config.cycles)
        log.emit("run_finished", summary="summary.json")


def check(config: RunConfig, runtime: Runtime) -> tuple[type[ExperienceStrategy], Plan, Learner]:
    """Build what a run needs without doing any of its work, or refuse.

    Raises
    ------
    ConfigError
        If the run cannot be what its configuration says.
    ModelError
        If the base model is not there.
    """
    if not config.out or not Path(config.out).is_absolute():
        raise ConfigError(f"out must be the absolute path of a folder for results, not {config.out!r}")
    load_codec(config.codec.name)
    _check_codec(config)
    strategy = load_strategy(config.strategy.name)
    plan = Plan.of(config)
    _check_privacy(config, strategy, plan)
    return strategy, plan, make_learner(config, runtime.cache(config))


def _check_codec(config: RunConfig) -> None:
    """Refuse a codec whose context the devices' backend cannot play, or that distillation cannot retain."""
    codec, backend = config.codec.name, config.policy.backend
    backends = CONTEXT_BACKENDS.get(codec)
    if backends and (backend not in backends or config.distil.retention):
        raise ConfigError(
            f"codec.name {codec!r} needs policy.backend {' or '.join(map(repr, backends))} and distil.retention 0"
        )


def _check_privacy(config: RunConfig, strategy: type[ExperienceStrategy], plan: Plan) -> None:
    """Refuse noise that a strategy does not add, cohorts too small to hide in, and budgets that no noise keeps."""
    mechanism = config.privacy.mechanism
    needed = NEEDED.get(mechanism, ExperienceStrategy)
    if not issubclass(strategy, needed) or (mechanism == "none" and issubclass(strategy, (CentralMean, LocalMean))):
        pairs = ", ".join(f"{name!r} and a {kind.__name__}" for name, kind in NEEDED.items())
        raise ConfigError(
            f"privacy.mechanism {mechanism!r} and strategy {strategy.__name__} do not go together: {pairs} do"
        )
    if not issubclass(strategy, BudgetStrategy):
        return
    safeguards, encoder = RunSafeguards(config), load_codec(config.codec.name).encoder
    try:
        safeguards.plan(spec_of(config, encoder, plan, ""))
        if issubclass(strategy, SecureMean):
            choose_graph(safeguards.sample, config.privacy.colluding, config.privacy.max_dropout)
    except (PrivacyError, SecureSumError) as error:
        raise ConfigError(str(error)) from error


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Run what the run config says."""
    run(grid, RunConfig.from_flat(context.run_config), LocalRuntime(), engine="flower")
