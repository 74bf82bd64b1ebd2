"""Conformance checks of families of games."""

from __future__ import annotations

import json
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...games.families import Family, Number, build_game
from ...games.game import Game
from ...games.heuristics import uniform
from ...games.scripted import play_scripted
from ...protocol.host.processes import environment_of_children
from ...protocol.play import GameSpec, Observation, Setting
from .checks import demand, go_through_a_run

SEEDS = range(1, 9)
TURNS = 40
TRANSCRIPT = f"import sys; from {__name__} import transcript; print(transcript(*sys.argv[1:]))"


@dataclass(frozen=True)
class Named:
    """A family, and its name in a run's configuration."""

    name: str
    family: Family

    @cached_property
    def spec(self) -> GameSpec:
        """The smallest game of the family that its settings allow, with a generous turn limit."""
        settings: dict[str, Setting] = {
            name: rule.choices[0] if rule.choices else rule.low
            for name, rule in self.family.rules.items()
            if isinstance(rule, Number) and rule.default is None
        }
        return GameSpec(self.name, tuple(sorted(settings.items())), TURNS)

    @contextmanager
    def game(self) -> Iterator[Game]:
        """Build the game in a temporary cache."""
        with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder:
            game = build_game(self.spec, Path(folder))
            try:
                yield game
            finally:
                game.close()
                game.close()  # closing twice must be allowed


def by_walkthrough(game: Game, seed: int) -> list[Observation]:
    """Play an instance by its walkthrough, without commands that are not admissible, and return the transcript."""
    observations = [game.reset(seed)]
    for command in game.walkthrough() or ():
        if command in observations[-1].admissible and not observations[-1].done:
            observations.append(game.step(command))
    return observations


def transcript(spec: str, folder: str, seed: str) -> str:
    """Build a game, and return the transcript of an instance as JSON."""
    with closing(build_game(GameSpec.parse(spec), Path(folder))) as game:
        return json.dumps([asdict(observation) for observation in by_walkthrough(game, int(seed))])


def check_the_walkthrough_wins(named: Named) -> None:
    """Every instance has a walkthrough that wins."""
    with named.game() as game:
        for seed in SEEDS:
            game.reset(seed)
            demand(game.walkthrough(), f"seed {seed} has no walkthrough")
            last = by_walkthrough(game, seed)[-1]
            demand(last.won and last.done and not last.lost, f"the walkthrough of seed {seed} does not win")
            demand(last.score == last.max_score > 0, f"won with a score of {last.score} of {last.max_score}")


def check_a_seed_is_an_instance(named: Named) -> None:
    """The same seed gives the same transcript, and different seeds give different ones."""
    with named.game() as game:
        transcripts = [by_walkthrough(game, seed) for seed in (*SEEDS, SEEDS[0])]
    demand(transcripts[0] == transcripts[-1], "the same seed gave another transcript")
    demand(
        any(transcript != transcripts[0] for transcript in transcripts),
        f"seeds {SEEDS[0]} to {SEEDS[-1]} all gave the same transcript",
    )


def check_another_process_sees_the_same(named: Named) -> None:
    """Another process, with other hash randomisation, gives the same transcript."""
    environment = {**environment_of_children(), "PYTHONHASHSEED": "7"}
    with TemporaryDirectory(prefix="fedoel-check-") as folder:
        instance = str(named.spec), folder, str(SEEDS[0])
        call = [sys.executable, "-c", TRANSCRIPT, *instance]
        completed = subprocess.run(call, env=environment, capture_output=True, text=True)
        error = completed.stderr.strip().splitlines()[-1:]
        demand(completed.returncode == 0, f"another process cannot play it: {error}")
        demand(completed.stdout.strip() == transcript(*instance), "another process gives another transcript")


def check_random_state_is_left_alone(named: Named) -> None:
    """Making and playing an instance does not change the global random state."""
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    with named.game() as game:
        by_walkthrough(game, SEEDS[0])
    after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    demand(before == after, "the global random state has changed: draw from numpy.random.default_rng(seed)")


def check_observations_are_plain(named: Named) -> None:
    """Every observation has a text, a goal in one line, and until the end distinct admissible commands."""
    with named.game() as game:
        for seed in SEEDS:
            for shown in by_walkthrough(game, seed):
                demand(shown.text.strip(), f"seed {seed} shows an empty text")
                demand(shown.goal.strip() and "\n" not in shown.goal, f"the goal {shown.goal!r} is not one line")
                commands = shown.admissible
                demand(commands or shown.done, f"seed {seed} is not done, but has no admissible command")
                demand(len(set(commands)) == len(commands), f"a command is listed twice: {commands}")
                words = all(c == " ".join(c.split()) and c.isprintable() for c in commands)
                demand(words, f"commands are words with single spaces between them, not {commands}")
                demand(np.isfinite([shown.score, shown.max_score]).all(), f"score {shown.score} of {shown.max_score}")


def check_random_play_ends(named: Named) -> None:
    """Uniform play ends within the turn limit, and is never both won and lost."""
    with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder:
        played = [play_scripted(named.spec, seed, uniform, np.random.default_rng(seed), Path(folder)) for seed in SEEDS]
    for trajectory in played:
        demand(1 <= len(trajectory.turns) <= TURNS, f"an episode took {len(trajectory.turns)} of {TURNS} turns")
        demand(trajectory.won + trajectory.lost <= 1, "an episode was both won and lost")
        demand(all(np.isfinite(turn.reward) for turn in trajectory.turns), "a reward is not finite")


def check_resets_are_whole(named: Named) -> None:
    """A reset in the middle of an episode restores the initial state."""
    with named.game() as game:
        first = game.reset(SEEDS[0])
        game.step(first.admissible[-1])
        demand(game.reset(SEEDS[0]) == first, "a reset does not restore the initial state")


def check_goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices completes two cycles of it, reproducibly to the bit."""
    go_through_a_run(games__families=str(named.spec))
