"""The verb ``play``: one held-out game, turn by turn; shown on the terminal, not stored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..protocol.errors import ConfigError
from ..protocol.settings import shown
from .flags import add_verbose, path, whole_number

if TYPE_CHECKING:
    from ..policies.policy import LogProbs, Policy
    from ..protocol.config import RunConfig
    from ..protocol.play import Trajectory, Turn
    from ..server.version_list import VersionList

HELP = "watch a policy play one game, turn by turn; nothing is stored"
EXAMPLES = (
    "--run runs/mine --seed 3", "--run runs/mine --before", "--game 'frozen-lake size=4 turns=10'",
    "--device device --personal",
)  # fmt: skip
BAR_WIDTH = 24


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the flags."""
    player = parser.add_mutually_exclusive_group()
    player.add_argument(
        "--run", type=path, metavar="RUN", help="folder of a run, or of a fleet's server: its current version plays"
    )
    player.add_argument("--adapter", type=path, metavar="DIR", help="folder of an adapter")
    player.add_argument(
        "--device", type=path, metavar="DIR", help="folder of a device: its last good version plays, offline"
    )
    parser.add_argument("--personal", action="store_true", help="with what that device has learned for itself alone")
    parser.add_argument(
        "--before", nargs="?", const="", metavar="VERSION",
        help="with --run: show probabilities before and after, those of this version (default: the parent) first",
    )  # fmt: skip
    parser.add_argument("--game", metavar="GAME", help="e.g. 'coin-collector level=102 turns=7'")
    parser.add_argument(
        "--seed", type=whole_number, default=0, metavar="N", help="picks the game's instance and the draws"
    )
    add_verbose(parser)


def run(arguments: argparse.Namespace) -> int:
    """Play one game and show it."""
    from ..games.player import play_episodes
    from ..games.splits import PUBLIC_GAMES, Split, for_split, game_seed
    from ..protocol.host.cache import cache_folder
    from ..protocol.play import GameSpec

    if arguments.personal and not arguments.device:
        raise ConfigError("--personal plays with what a device has learned for itself: say --device, too")
    if arguments.before is not None and not arguments.run:
        raise ConfigError("--before compares with another version of a run: say --run, too")
    if not 0 <= arguments.seed < PUBLIC_GAMES:
        raise ConfigError(f"--seed must be from 0 to {PUBLIC_GAMES - 1}, not {shown(arguments.seed)}")
    if arguments.game:  # refused before a model is loaded
        for_split(GameSpec.parse(arguments.game), Split.HELD_OUT)
    known = _versions(arguments.run) if arguments.run else None
    before = _before(known, arguments.before) if known and arguments.before is not None else None
    config, policy = _player(arguments, known)
    spec = for_split(GameSpec.parse(arguments.game or _first_game(config)), Split.HELD_OUT)
    games = [(spec, game_seed(Split.HELD_OUT, arguments.seed))]
    trajectory = play_episodes(policy, games, [arguments.seed], cache_folder(config))[0]
    if before is None:
        print(show(trajectory))
    else:
        print(show(trajectory, before.version, before.score([turn.situation for turn in trajectory.turns])))
    return 0


def _before(known: VersionList, name: str) -> Policy:
    """Load the version to compare with, by default the parent of the current one."""
    from ..policies.backend import load_version
    from ..protocol.host.cache import cache_folder

    name = name or known.find(known.current).parent
    if not name:
        raise ConfigError(f"{known.current} is the first version of its run: name the one to compare with")
    version, config = known.find(name), known.place.config
    if (adapter := known.adapter(version)) is None:
        raise ConfigError(f"the weights of version {version.name} are gone: see `fedoel versions`")
    return load_version(config.policy, adapter, version.name, cache_folder(config))


def _versions(run: Path) -> VersionList:
    """Return the versions of the run; raises `ConfigError` if it has none yet."""
    from ..server.run_location import locate
    from ..server.version_list import VersionList

    known = VersionList(locate(run))
    if not known.current:
        raise ConfigError(f"the run in {run} has no version yet: finish its first cycle, or name a run")
    return known


def _player(arguments: argparse.Namespace, known: VersionList | None) -> tuple[RunConfig, Policy]:
    """Load the last good version of a device, the last version of a run, an adapter, or else the bare base model."""
    from ..client.device.folder import DeviceFolder
    from ..client.device.offline import load_last_version
    from ..client.device.success import fallen_back

    if arguments.device:  # what a device's installation lacks is imported behind this
        folder = DeviceFolder(arguments.device.absolute())
        if left := fallen_back(folder):
            print(f"version {left} is clearly worse on this device than the one before, which plays")
        return load_last_version(folder, arguments.personal)
    from numpy.typing import NDArray

    from ..policies.backend import load_version
    from ..protocol.host.cache import cache_folder
    from ..server.registry import load_adapter
    from ..simulations.scenario import load_scenario, scenario_of

    version, arrays = "", dict[str, NDArray[Any]]()
    if known is not None:
        config = known.place.config
        version, arrays = load_adapter(known.place.versions / known.current)
    elif arguments.adapter:
        version, arrays = load_adapter(arguments.adapter)
        config = scenario_of(arguments.adapter)
    else:
        config = load_scenario()
    return config, load_version(config.policy, arrays, version, cache_folder(config))


def _first_game(config: RunConfig) -> str:
    games = [part.strip() for part in config.games.families.split(";") if part.strip()]
    if not games:
        raise ConfigError("the scenario names no game; give one with --game 'coin-collector level=102 turns=7'")
    return games[0]


def show(trajectory: Trajectory, before: str = "", scores: Sequence[LogProbs] = ()) -> str:
    """Return an episode as text: what the player read, how likely each command was, and how it ended.

    Parameters
    ----------
    before, scores
        Name of another version, and the log-probabilities that it gives to the choices of each turn.
    """
    head = f"{trajectory.spec}, seed {trajectory.seed}, played by {trajectory.policy_version}"
    if before:
        head += f"\nprobabilities: of {before} -> of {trajectory.policy_version}"
    goal = trajectory.turns[0].situation.goal if trajectory.turns else ""
    turns = [
        show_turn(number, turn, scores[number - 1] if before else None)
        for number, turn in enumerate(trajectory.turns, 1)
    ]
    return "\n\n".join([head, f"Goal: {goal}", *turns, outcome(trajectory)])


def show_turn(number: int, turn: Turn, before: LogProbs | None = None) -> str:
    """Return one turn: the observation, and a bar for each choice with the chosen one marked."""
    situation = turn.situation
    text, choices = situation.reply or situation.place_text, situation.choices
    order = sorted(range(len(choices)), key=lambda i: -turn.log_probs[i])
    width = max(len(choice) for choice in choices)
    bars = [
        f"{'>' if i == turn.action else ' '} {choices[i].ljust(width)} "
        + ("" if before is None else f"{math.exp(before[i]):6.1%} -> ")
        + _bar(math.exp(turn.log_probs[i]))
        for i in order
    ]
    return "\n".join([f"--- turn {number} of {situation.max_turns}", text.strip(), "", *bars])


def outcome(trajectory: Trajectory) -> str:
    """Say how an episode ended."""
    end = "won" if trajectory.won else "lost" if trajectory.lost else "out of turns"
    turns = len(trajectory.turns)
    return f"=== {end} after {turns} {'turn' if turns == 1 else 'turns'}, score {trajectory.score:.0%}"


def _bar(probability: float) -> str:
    return f"{'█' * round(BAR_WIDTH * probability):<{BAR_WIDTH}} {probability:6.1%}"
