"""Every strategy under every attack: what the last version wins, with malicious clients among honest ones that differ.

    python benchmarks/attacks.py --seeds 0,1,2 --out runs/attacks

30 devices with 6 private games a cycle from a mix of two games in pure Python that differs from device to device
(Dirichlet 0.5), six cycles, without a language model. A share of the devices lies (`fedoel.simulations.attacks`).
Writes results.json and table.md; a run that is there already is not made again.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the games lie beside this file, and under examples/

from fedoel.client.runtime import SimulatedRuntime
from fedoel.codecs.tactics.policy import TacticsPolicy
from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.records.json_codec import from_json, to_json
from fedoel.server.app import run
from fedoel.server.public.game_plan import GamePlan
from fedoel.server.public.games import PublicGames
from fedoel.server.registry import load_adapter
from fedoel.server.summary import read_summary
from fedoel.simulations.attacks import ATTACKS, Gang, make_attacked_app, malicious_of
from fedoel.simulations.grid import InProcessGrid, server_identity

SETTINGS: Mapping[str, Scalar] = {
    "clients": 30, "cycles": 6, "policy.backend": "tactics", "games.per-client": 6, "games.partition": "dirichlet:0.5",
    "games.families": "examples.errand:ERRAND rooms=4 turns=8; benchmarks.vault:VAULT rooms=3 turns=8",
    "games.rehearsal": 48, "games.gate": 64, "games.held-out": 250, "games.held-out-teacher": 1,
    "strategy.min-available-nodes": 30, "server.public": "games",
}  # fmt: skip
STRATEGIES: Mapping[str, str] = {
    "mean": "",
    "trimmed-mean": "beta=0.25",
    "median": "",
    "krum": "num-malicious-nodes=6",
    "multi-krum": "num-malicious-nodes=6",
    "norm-bounded": "",
    "trusted": "",
    "trusted-trimmed": "",
    "clustered": "num-clusters=2",
    "buffered": "buffer-size=24",
    "momentum": "server-momentum=0.3",
    "adam": "",
    "secure-mean": "",
    "grouped-secure": "group-size=3 min-likeness=0",
    "trusted-secure": "group-size=3",
}
PRIVATE = ("secure-mean", "grouped-secure", "trusted-secure")
SHARE = 0.2
SHARES: Mapping[str, float] = {
    "none": 0.0,
    **{name: SHARE for name in ATTACKS if name != "none"},
    **{f"collude {percent} %": percent / 100 for percent in (10, 30, 40)},
}


@dataclass(frozen=True, slots=True)
class Result:
    """What the last version of a run wins, what was decided in each cycle, and how many vectors were refused."""

    win_rate: float
    episodes: int
    decisions: tuple[str, ...]
    refused: tuple[int, ...]
    rehearsal: int = 48  # of results that do not say


@dataclass(frozen=True, slots=True)
class Cell:
    """One run: a strategy, an attack, a seed, and how many public games the server plays in a cycle."""

    strategy: str
    attack: str
    seed: int
    rehearsal: int

    @property
    def key(self) -> str:
        return f"{self.strategy}/{self.attack}/{self.seed}"

    def config(self, out: Path, cache: Path) -> RunConfig:
        own: Mapping[str, Scalar] = {
            "strategy.name": self.strategy, "strategy.options": STRATEGIES.get(self.strategy, ""), "seed": self.seed,
            "out": str(out), "cache": str(cache), "games.rehearsal": self.rehearsal,
        }  # fmt: skip
        return RunConfig.from_flat({**SETTINGS, **own})


def main() -> None:
    """Run what is missing, then write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--attacks", default=",".join(SHARES))
    parser.add_argument("--rehearsal", default=SETTINGS["games.rehearsal"], type=int, help="public games in a cycle")
    parser.add_argument("--out", default="runs/attacks", type=Path)
    given = parser.parse_args()
    logging.getLogger("flwr").setLevel(logging.CRITICAL)
    seeds = [int(seed) for seed in given.seeds.split(",")]
    cells = [
        Cell(strategy, attack, seed, given.rehearsal)
        for seed in seeds
        for strategy in given.strategies.split(",")
        for attack in given.attacks.split(",")
    ]
    out = given.out.absolute()
    out.mkdir(parents=True, exist_ok=True)
    path = out / "results.json"
    results = read(path) if path.exists() else {}
    if any(result.rehearsal != given.rehearsal for result in results.values()):
        parser.error(f"{out} holds runs with other public games than {given.rehearsal} a cycle: name another --out")
    for number, cell in enumerate(cells, start=1):
        if cell.key not in results:
            results[cell.key] = attacked(cell, out)
            path.write_text(json.dumps({key: to_json(result) for key, result in results.items()}, indent=1))
            print(f"{number}/{len(cells)} {cell.key}: {100 * results[cell.key].win_rate:.0f} %", flush=True)
    text = table(results)
    (out / "table.md").write_text(text)
    print(text)


def read(path: Path) -> dict[str, Result]:
    """Read results.json."""
    return {key: from_json(Result, table, key) for key, table in json.loads(path.read_text()).items()}


def attacked(cell: Cell, out: Path) -> Result:
    """Make one run, and measure its last version: the versions before it need not be."""
    folder, runtime = out / "run", SimulatedRuntime()
    shutil.rmtree(folder, ignore_errors=True)
    config = cell.config(folder, out / "cache")
    brief = replace(config, games=replace(config.games, held_out=1))
    name = cell.attack.partition(" ")[0]
    gang = Gang(runtime, brief, ATTACKS[name], malicious_of(config.clients, SHARES[cell.attack], cell.seed))
    with server_identity():
        grid = InProcessGrid(make_attacked_app(runtime, gang), config.clients, brief.to_flat())
        run(grid, brief, runtime.cache(brief), engine="inprocess")
    cycles = read_summary(folder).cycles
    version, adapter = load_adapter(folder / "versions" / cycles[-1].version)
    policy = TacticsPolicy.from_adapter(adapter, version)
    plan = GamePlan.of(config)
    won = sum(each.won for each in PublicGames(plan, out / "cache").play(policy, plan.held_out, "held-out"))
    return Result(
        win_rate=won / len(plan.held_out), episodes=len(plan.held_out), rehearsal=cell.rehearsal,
        decisions=tuple(record.decision for record in cycles[1:]),
        refused=tuple(sum(record.refused.values()) for record in cycles[1:]),
    )  # fmt: skip


def table(results: Mapping[str, Result]) -> str:
    """Win rates by strategy and attack, then what the best strategies of both kinds lose to each attack."""
    cells: dict[tuple[str, str], list[Result]] = {}
    for key, result in results.items():
        strategy, attack, _ = key.split("/")
        cells.setdefault((strategy, attack), []).append(result)
    strategies, attacks = ([*dict.fromkeys(key[place] for key in cells)] for place in (0, 1))
    lines = ["| attack | " + " | ".join(strategies) + " |", "|" + "---|" * (len(strategies) + 1)]
    lines += [
        f"| {title(attack)} | " + " | ".join(rate(cells.get((strategy, attack), [])) for strategy in strategies) + " |"
        for attack in attacks
    ]
    lines += ["", "| attack | loses least of the plain ones | loses least of the private ones |", "|---|---|---|"]
    plain = [strategy for strategy in strategies if strategy not in PRIVATE]
    kinds = (plain, [strategy for strategy in strategies if strategy in PRIVATE])
    for attack in [attack for attack in attacks if attack != "none"]:
        lines.append(f"| {title(attack)} | " + " | ".join(least(cells, attack, kind) for kind in kinds) + " |")
    return "\n".join(lines) + "\n"


def title(attack: str) -> str:
    """An attack and the share of clients that make it."""
    return attack if attack == "none" or "%" in attack else f"{attack} {100 * SHARES[attack]:.0f} %"


def rate(runs: Sequence[Result]) -> str:
    """Mean over seeds, and from the lowest to the highest."""
    if not runs:
        return ""
    rates = [100 * result.win_rate for result in runs]
    return f"{fmean(rates):.0f} ({min(rates):.0f}-{max(rates):.0f})"


def least(cells: Mapping[tuple[str, str], Sequence[Result]], attack: str, strategies: Sequence[str]) -> str:
    """The strategy that is best under an attack, what it wins, and points lost, with a 95 % interval.

    Lost against the best that any strategy of its kind wins when nobody lies: who is bad anyway has little to lose.
    """
    known = [strategy for strategy in strategies if (strategy, attack) in cells and (strategy, "none") in cells]
    if not known:
        return ""
    best = max(known, key=lambda strategy: mean(cells[strategy, attack]))
    peak = max(known, key=lambda strategy: mean(cells[strategy, "none"]))
    before, after = cells[peak, "none"], cells[best, attack]
    lost = 100 * (mean(before) - mean(after))
    margin = 196 * math.sqrt(sum(mean(runs) * (1 - mean(runs)) / count(runs) for runs in (before, after)))
    return f"{best}: {100 * mean(after):.0f} %, {lost:+.1f} lost ({lost - margin:+.1f} to {lost + margin:+.1f})"


def mean(runs: Sequence[Result]) -> float:
    """Win rate over all episodes of some runs."""
    return fmean(result.win_rate for result in runs)


def count(runs: Sequence[Result]) -> int:
    """Episodes of some runs."""
    return sum(result.episodes for result in runs)


if __name__ == "__main__":
    main()
