"""What a student learns of one teacher from prompts of different packs.

    python benchmarks/packs.py runs/standard-1 --cycle 3 --family cooking --games 60 uniform.jsonl explored.jsonl

Takes a finished cycle of a run whose server has prompts: the version that it began with and the context that it ended
with. Plays public games of the gate with the version and with its teacher; then, for each pack, distils the teacher on
as many prompts of it as the run's cycles have, with the run's settings, and plays the same games with the student.
A pack is named by its file; `-` is the run's own. Results are added to --out, one JSON line each.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from fedoel.games.player import play_episodes
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.policies.policy import Policy
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.host.cache import default_cache
from fedoel.protocol.play import GameId, specs_from_text
from fedoel.protocol.prompt_pack import PromptPack, read_pack
from fedoel.server.app import prepare
from fedoel.server.cycle.collect import numbered
from fedoel.server.cycle.contender import Version
from fedoel.server.cycle.context import CONTEXT
from fedoel.server.cycle.distil import consolidation
from fedoel.server.cycle.mixture import Mixture
from fedoel.server.cycle.phases import load_phase
from fedoel.server.cycle.run import Run
from fedoel.server.learner import Adapter
from fedoel.server.public.prompts import PromptsPublic, PromptStates
from fedoel.server.registry import VERSIONS, load_adapter
from fedoel.server.run_folder import stored_config
from fedoel.server.summary import read_summary
from fedoel.simulations.prompts import with_pack

OWN = "-"  # the pack of the run


@dataclass(frozen=True)
class Cycle:
    """A finished cycle: the version that it began with, and its teacher's context."""

    run: Run
    number: int
    version: Version
    mixture: Mixture

    @classmethod
    def of(cls, folder: Path, number: int) -> Cycle:
        config = with_pack(replace(stored_config(folder), out=str(folder), resume=True), default_cache())
        run = prepare(config, default_cache())[1].run
        before = read_summary(folder).cycles[number - 1].version
        context = CONTEXT.read(load_phase(folder, number, numbered("context", config.strategy.exchanges)))
        return cls(run, number, Version(*load_adapter(folder / VERSIONS / before)), Mixture.of(context))

    def student(self, pack: PromptPack | None) -> Adapter:
        """Distil the teacher on prompts of a pack, by default the run's own."""
        public = self.run.public
        if not isinstance(public, PromptsPublic):
            raise ConfigError("the server of this run has games: take a run of a server with prompts")
        public = replace(public, pack=pack) if pack else public
        states = PromptStates(self.run, public.of_cycle(self.number), self.version, self.number)
        policy, seed = self.run.learner.policy(self.version.adapter), self.run.plan.training_seed(self.number)
        task = consolidation(self.run.codec, policy, self.mixture, states.training(self.mixture), seed)
        return self.run.learner.distil(self.version.adapter, task, lambda *_: None).adapter

    def policies(self) -> Mapping[str, Policy]:
        """Return the version and its teacher."""
        policy = self.run.learner.policy(self.version.adapter)
        (context,) = self.mixture.contexts
        return {"version": policy, "teacher": self.run.codec.teacher(policy, context=context)}


def won(policy: Policy, games: Sequence[GameId]) -> dict[str, int]:
    """Play games, and say how many were won and lost."""
    played = play_episodes(policy, games, list(range(len(games))), default_cache())
    return {"won": sum(t.won for t in played), "lost": sum(t.lost for t in played), "games": len(played)}


def main(arguments: argparse.Namespace) -> None:
    """Measure what was asked for."""
    torch.set_num_threads(1)
    cycle = Cycle.of(arguments.run, arguments.cycle)
    specs = [s for s in specs_from_text(cycle.run.config.games.families) if arguments.family in ("", s.family)]
    if not specs:
        raise SystemExit(f"the run has no games of the family {arguments.family!r}")
    games = [
        (for_split(specs[index % len(specs)], Split.GATE), game_seed(Split.GATE, index))
        for index in range(arguments.games)
    ]

    def note(name: str, policy: Policy, start: float) -> None:
        line = {"policy": name, **won(policy, games), "seconds": round(time.time() - start, 1)}
        print(json.dumps(line), flush=True)
        with arguments.out.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"run": arguments.run.name, "cycle": cycle.number, **line}) + "\n")

    for name, policy in cycle.policies().items():
        note(name, policy, time.time())
    for pack in arguments.packs:
        start = time.time()
        adapter = cycle.student(None if pack == OWN else read_pack(Path(pack)))
        note(f"student of {Path(pack).stem}", cycle.run.learner.policy(adapter), start)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="folder of the run")
    parser.add_argument("packs", nargs="+", help="packs of prompts; - for the run's own")
    parser.add_argument("--cycle", type=int, required=True, help="whose teacher is distilled")
    parser.add_argument("--family", default="", help="family that is played (default: all of the run's)")
    parser.add_argument("--games", type=int, default=60, help="public games (default: %(default)s)")
    parser.add_argument("--out", type=Path, default=Path("packs.jsonl"), help="default: %(default)s")
    main(parser.parse_args())
