"""The verb ``play``: one held-out game, turn by turn; shown on the terminal, not stored."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..protocol.errors import ConfigError
from .episode import show
from .flags import add_verbose

if TYPE_CHECKING:
    from ..policies.policy import Policy
    from ..protocol.config import RunConfig

HELP = "watch a policy play one game, turn by turn; nothing is stored"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    player = parser.add_mutually_exclusive_group()
    player.add_argument("--run", metavar="RUN", help="folder of a run: its last version plays")
    player.add_argument("--adapter", metavar="DIR", help="folder of an adapter")
    player.add_argument("--device", metavar="DIR", help="folder of a device: its last good version plays, offline")
    parser.add_argument("--personal", action="store_true", help="with what that device has learned for itself alone")
    parser.add_argument("--game", metavar="GAME", help="e.g. 'coin-collector level=102 turns=7'")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="picks the game's instance and the draws")
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Play one game and show it."""
    from ..games.cache import cache_folder
    from ..games.player import play_episodes
    from ..games.splits import Split, for_split, game_seed
    from ..protocol.play import GameSpec

    if arguments.personal and not arguments.device:
        raise ConfigError("--personal plays with what a device has learned for itself: say --device, too")
    if arguments.game:  # refused before a model is loaded
        for_split(GameSpec.parse(arguments.game), Split.HELD_OUT)
    config, policy = _from_device(arguments) if arguments.device else _from_adapter(arguments)
    spec = for_split(GameSpec.parse(arguments.game or _first_game(config)), Split.HELD_OUT)
    games = [(spec, game_seed(Split.HELD_OUT, arguments.seed))]
    print(show(play_episodes(policy, games, [arguments.seed], cache_folder(config))[0]))
    return 0


def _from_device(arguments: argparse.Namespace) -> tuple[RunConfig, Policy]:
    from ..client.device.folder import folder_at
    from ..client.device.offline import load_last_version

    return load_last_version(folder_at(arguments.device), arguments.personal)


def _from_adapter(arguments: argparse.Namespace) -> tuple[RunConfig, Policy]:
    """Load the last version of a run, an adapter, or else the bare base model."""
    from numpy.typing import NDArray

    from ..games.cache import cache_folder
    from ..policies.backend import load_version
    from ..server.registry import load_adapter
    from ..server.run_folder import stored_config
    from ..server.summary import read_summary
    from ..simulations.scenario import load_scenario, scenario_of

    version, arrays = "", dict[str, NDArray[Any]]()
    if arguments.run:
        folder = Path(arguments.run).expanduser()
        config = stored_config(folder)
        version, arrays = load_adapter(folder / "versions" / read_summary(folder).cycles[-1].version)
    elif arguments.adapter:
        folder = Path(arguments.adapter).expanduser()
        version, arrays = load_adapter(folder)
        config = scenario_of(folder)
    else:
        config = load_scenario()
    return config, load_version(config.policy, arrays, version, cache_folder(config))


def _first_game(config: RunConfig) -> str:
    games = [part.strip() for part in config.games.families.split(";") if part.strip()]
    if not games:
        raise ConfigError("the scenario names no game; give one with --game 'coin-collector level=102 turns=7'")
    return games[0]
