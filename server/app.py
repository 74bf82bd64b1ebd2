"""The server's Flower app: builds the parts of a run and lets the strategy turn its cycles."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from flwr.app import Context
from flwr.serverapp import Grid, ServerApp

from ..codecs.codec import check_codec
from ..codecs.encoder import Encoder, SendsWords
from ..games.store import cache_folder
from ..policies.backend import load_backend
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.fleet.membership import keys_folder
from ..strategies.consolidator import Consolidator
from ..strategies.experience import ExperienceStrategy
from ..strategies.registry import build_strategy, load_strategy
from ..strategies.secure_mean import SecureMean
from .cycle import Cycles
from .events import EventLog
from .exchanges import spec_of
from .fleet import make_fleet
from .game_plan import GamePlan
from .learner import Learner
from .learner_registry import make_learner
from .safeguards import RunSafeguards

Listener = Callable[[dict[str, Any]], None]


def run(grid: Grid, config: RunConfig, cache: Path, listener: Listener | None = None, engine: str = "") -> None:
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

    Raises
    ------
    ConfigError
        If the run cannot be what its configuration says.
    """
    strategy_class, plan, learner = check(config, cache)
    if not config.privacy.keys:  # a simulation: the fleet is made with the run
        make_fleet(keys_folder(config), config.clients)
    with EventLog(Path(config.out) / "events.jsonl", listener) as log:
        secure = issubclass(strategy_class, SecureMean)
        cycles = Cycles(config, plan, learner, log, cache, engine or type(grid).__name__, secure)
        strategy = build_strategy(config.strategy, cycles, config.seed)
        strategy.start(grid, num_rounds=config.cycles)
        log.emit("run_finished", summary="summary.json")


def check(config: RunConfig, cache: Path) -> tuple[type[ExperienceStrategy], GamePlan, Learner]:
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
    abilities = load_backend(config.policy.backend).abilities
    encoder, plan = check_codec(config, abilities).encoder, GamePlan.of(config)
    strategy = load_strategy(config.strategy.name)
    _check_words(config, encoder, strategy)
    if config.privacy.mechanism not in strategy.mechanisms:
        raise ConfigError(
            f"privacy.mechanism {config.privacy.mechanism!r} and strategy {config.strategy.name!r} do not go together: "
            f"it works with {', '.join(sorted(strategy.mechanisms))}; 'distributed' noise needs 'secure-mean', "
            "'central' noise 'central-mean' and 'local' noise 'local-mean'"
        )
    # Until the run starts, safeguards are all that there is to ask.
    unborn = cast(Consolidator, SimpleNamespace(safeguards=RunSafeguards(config)))
    build_strategy(config.strategy, unborn, config.seed).check(spec_of(config, encoder, plan, ""))
    return strategy, plan, make_learner(config, cache)


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
