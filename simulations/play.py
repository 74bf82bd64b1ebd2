"""The verb ``play``: one game, turn by turn, with how likely each command was; shown on the terminal, not stored."""

from __future__ import annotations

import argparse
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from ..policies.policy import Policy
    from ..protocol.play import Trajectory, Turn

    Adapter = Mapping[str, NDArray[Any]]

BAR_WIDTH = 24


def run_verb(arguments: argparse.Namespace) -> int:
    """Play one game and show it."""
    from ..games.cache import cache_folder
    from ..policies.backend import load_version

    if arguments.personal and not arguments.device:
        raise ConfigError("--personal plays with what a device has learned for itself: say --device, too")
    if arguments.device:
        config, policy = _device(arguments.device, arguments.personal)
    else:
        config, adapter = _player(arguments)
        version, arrays = _load(adapter)
        policy = load_version(config.policy, arrays, version, cache_folder(config))
    print(show(play(config, policy, arguments.game or _first_game(config), arguments.seed)))
    return 0


def play(config: RunConfig, policy: Policy, game: str, seed: int) -> Trajectory:
    """Play one held-out instance of a game."""
    from ..games.cache import cache_folder
    from ..games.player import play_episodes
    from ..games.splits import Split, for_split, game_seed
    from ..protocol.play import GameSpec

    spec = for_split(GameSpec.parse(game), Split.HELD_OUT)
    games = [(spec, game_seed(Split.HELD_OUT, seed))]
    return play_episodes(policy, games, [seed], cache_folder(config))[0]


def show(trajectory: Trajectory) -> str:
    """Return an episode as text: what the player read, how likely each command was, and how it ended."""
    head = f"{trajectory.spec}, seed {trajectory.seed}, played by {trajectory.policy_version}"
    goal = trajectory.turns[0].situation.goal if trajectory.turns else ""
    turns = [show_turn(number, turn) for number, turn in enumerate(trajectory.turns, 1)]
    return "\n\n".join([head, f"Goal: {goal}", *turns, outcome(trajectory)])


def show_turn(number: int, turn: Turn) -> str:
    """Return one turn: the observation, and a bar for each command with the chosen one marked."""
    situation = turn.situation
    text = situation.reply or situation.place_text
    order = sorted(range(len(situation.admissible)), key=lambda i: -turn.log_probs[i])
    width = max(len(command) for command in situation.admissible)
    bars = [
        f"{'>' if i == turn.action else ' '} {situation.admissible[i].ljust(width)} {_bar(math.exp(turn.log_probs[i]))}"
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


def _load(adapter: Path | None) -> tuple[str, Adapter]:
    from ..server.registry import load_adapter

    return load_adapter(adapter) if adapter is not None else ("", {})


def _device(path: str, personal: bool) -> tuple[RunConfig, Policy]:
    """Load a device's last good version, after its signature was checked; needs no network."""
    from ..client.device.folder import folder_at, membership_of
    from ..client.device.last_version import last_version
    from ..client.device.own_context import with_own_context
    from ..client.device.runtime import DeviceRuntime
    from ..policies.backend import load_version

    folder = folder_at(path)
    config, request = last_version(folder.versions, membership_of(folder).fleet_key)
    config = DeviceRuntime(folder.path).own(config)
    policy = load_version(config.policy, request.adapter, request.spec.policy_version, folder.cache)
    return config, with_own_context(folder, config, request, policy) if personal else policy


def _player(arguments: argparse.Namespace) -> tuple[RunConfig, Path | None]:
    """Say which configuration and adapter play: those of a run, the adapter given, or the bare base model."""
    from ..server.run_folder import stored_config
    from ..server.summary import read_summary
    from .evaluate import existing, scenario_of
    from .scenario import load_scenario

    if arguments.run:
        run = Path(arguments.run).expanduser()
        return stored_config(run), run / "versions" / read_summary(run).cycles[-1].version
    if arguments.adapter:
        adapter = existing(arguments.adapter)
        return scenario_of(adapter), adapter
    return load_scenario(), None


def _first_game(config: RunConfig) -> str:
    games = [part.strip() for part in config.games.families.split(";") if part.strip()]
    if not games:
        raise ConfigError("the scenario names no game; give one with --game 'coin-collector level=102 turns=7'")
    return games[0]
