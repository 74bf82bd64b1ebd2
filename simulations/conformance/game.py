"""What a family of games must do."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from ...games.families import Family, build_game
from ...games.game import Game
from ...games.heuristics import uniform
from ...games.scripted import play_scripted
from ...games.settings import Number
from ...protocol.play import GameSpec, Observation, Setting
from .checks import demand
from .federation import go_through_a_run

SEEDS = range(1, 9)
TURNS = 40
TRANSCRIPT = """
import json, sys
from dataclasses import asdict
from pathlib import Path
from fedoel.games import build_game
from fedoel.protocol.play import GameSpec
game = build_game(GameSpec.parse(sys.argv[1]), Path(sys.argv[2]))
seen = [game.reset(int(sys.argv[3]))]
for command in game.walkthrough() or ():
    if command in seen[-1].admissible and not seen[-1].done:
        seen.append(game.step(command))
print(json.dumps([asdict(observation) for observation in seen]))
"""


@dataclass(frozen=True)
class Named:
    """A family, and the name by which a run finds it."""

    name: str
    family: Family

    @cached_property
    def spec(self) -> GameSpec:
        """A game of the family, as small as its settings allow, with time enough."""
        settings: dict[str, Setting] = {
            name: rule.choices[0] if rule.choices else rule.low
            for name, rule in self.family.rules.items()
            if isinstance(rule, Number) and rule.default is None
        }
        return GameSpec(self.name, tuple(sorted(settings.items())), TURNS)

    @contextmanager
    def game(self) -> Iterator[Game]:
        """Build it, in a cache of its own."""
        with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder:
            game = build_game(self.spec, Path(folder))
            try:
                yield game
            finally:
                game.close()
                game.close()  # closing twice is fine


def by_walkthrough(game: Game, seed: int) -> list[Observation]:
    """Play an instance by its own walkthrough; commands that turned out to be needless are left out."""
    seen = [game.reset(seed)]
    for command in game.walkthrough() or ():
        if command in seen[-1].admissible and not seen[-1].done:
            seen.append(game.step(command))
    return seen


def the_walkthrough_wins(named: Named) -> None:
    """Every instance has a walkthrough, and it wins: tables show it as the ceiling."""
    with named.game() as game:
        for seed in SEEDS:
            game.reset(seed)
            demand(game.walkthrough(), f"seed {seed} has no walkthrough")
            last = by_walkthrough(game, seed)[-1]
            demand(last.won and last.done and not last.lost, f"the walkthrough of seed {seed} does not win")
            demand(last.score == last.max_score > 0, f"won with a score of {last.score} of {last.max_score}")


def a_seed_is_an_instance(named: Named) -> None:
    """The same seed gives the same transcript, and seeds differ."""
    with named.game() as game:
        seen = [by_walkthrough(game, seed) for seed in (*SEEDS, SEEDS[0])]
    demand(seen[0] == seen[-1], "the same seed gave another transcript")
    demand(any(each != seen[0] for each in seen), f"seeds {SEEDS[0]} to {SEEDS[-1]} all gave the same transcript")


def another_process_sees_the_same(named: Named) -> None:
    """Another process, with other hashes, sees the same transcript: devices and server build games for themselves."""
    with named.game() as game:
        here = [asdict(each) for each in by_walkthrough(game, SEEDS[0])]
    path = os.pathsep.join(sys.path)
    with TemporaryDirectory(prefix="fedoel-check-") as folder:
        call = [sys.executable, "-c", TRANSCRIPT, str(named.spec), folder, str(SEEDS[0])]
        done = subprocess.run(
            call, env={**os.environ, "PYTHONPATH": path, "PYTHONHASHSEED": "7"}, capture_output=True, text=True
        )
    demand(done.returncode == 0, f"another process cannot play it: {done.stderr.strip().splitlines()[-1:]}")
    demand(json.loads(done.stdout) == json.loads(json.dumps(here)), "another process sees another transcript")


def random_state_is_left_alone(named: Named) -> None:
    """Making and playing an instance leaves the global random state alone."""
    before = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    with named.game() as game:
        by_walkthrough(game, SEEDS[0])
    after = random.getstate(), np.random.get_state()[1].tolist()  # type: ignore[index]
    demand(before == after, "the global random state has changed: draw from numpy.random.default_rng(seed)")


def observations_are_plain(named: Named) -> None:
    """There is always a text, a goal in one line, and until the end something to do, nothing twice."""
    with named.game() as game:
        for seed in SEEDS:
            for seen in by_walkthrough(game, seed):
                demand(seen.text.strip(), f"seed {seed} shows an empty text")
                demand(seen.goal.strip() and "\n" not in seen.goal, f"the goal {seen.goal!r} is not one line")
                commands = seen.admissible
                demand(commands or seen.done, f"seed {seed} goes on, but nothing is admissible")
                demand(len(set(commands)) == len(commands), f"a command is listed twice: {commands}")
                words = all(c == " ".join(c.split()) and c.isprintable() for c in commands)
                demand(words, f"commands are words with single spaces between them, not {commands}")
                demand(np.isfinite([seen.score, seen.max_score]).all(), f"score {seen.score} of {seen.max_score}")


def random_play_ends(named: Named) -> None:
    """Uniform play ends in time, and is never won and lost at once."""
    with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder:
        played = [play_scripted(named.spec, seed, uniform, np.random.default_rng(seed), Path(folder)) for seed in SEEDS]
    for trajectory in played:
        demand(1 <= len(trajectory.turns) <= TURNS, f"an episode took {len(trajectory.turns)} of {TURNS} turns")
        demand(trajectory.won + trajectory.lost <= 1, "an episode was won and lost")
        demand(all(np.isfinite(turn.reward) for turn in trajectory.turns), "a reward is not finite")


def resets_are_whole(named: Named) -> None:
    """An instance that is started again in the middle of an episode is as it was."""
    with named.game() as game:
        first = game.reset(SEEDS[0])
        game.step(first.admissible[-1])
        demand(game.reset(SEEDS[0]) == first, "something of the episode before is left after a reset")


def goes_through_whole_runs(named: Named) -> None:
    """A federation of eight devices goes through two cycles of it, and repeats to the bit."""
    go_through_a_run(games__families=str(named.spec))


CHECKS = (
    the_walkthrough_wins,
    a_seed_is_an_instance,
    another_process_sees_the_same,
    random_state_is_left_alone,
    observations_are_plain,
    random_play_ends,
    resets_are_whole,
    goes_through_whole_runs,
)
