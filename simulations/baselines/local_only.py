"""The lower bound: every client learns from what it has played itself, and is measured on everybody's held-out games.

Each client's run is the fleet's own, with the nodes of all others away. It pays for all of the learning itself, and
sends nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import Any, ClassVar

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...server.cycle.phases import lend_cycle
from ...server.evaluation import wilson
from ...server.run_folder import prepare_folder
from ...server.summary import write_summary
from ..engines import check
from ..inprocess import run_inprocess
from ..summary import read_summary
from .baseline import Listener, in_the_open

Summary = dict[str, Any]
MEASURED = ("evaluate",)  # phases that learning does not need


@dataclass(frozen=True, kw_only=True)
class LocalOnly:
    """One run for each client, and their mean.

    Parameters
    ----------
    first
        How many clients are run, the first ones; 0 for all. With the partition by family, families come in turn.
    """

    NAME: ClassVar[str] = "local-only"

    first: int = 0

    def check(self, config: RunConfig) -> RunConfig:
        """Leave out what only a fleet needs: the teacher is hardly measured."""
        if not 0 <= self.first <= config.clients:
            raise ConfigError(f"local-only first={self.first}: there are {config.clients} clients")
        alone = replace(in_the_open(config, self), games=replace(config.games, held_out_teacher=1))
        check(alone)
        return alone

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run the clients one after the other; what they share, the warm start and its measures, is made once."""
        out, summaries = Path(config.out), list[Summary]()
        folders = [out / f"client-{client}" for client in range(self.first or config.clients)]
        for client, folder in enumerate(folders):
            own = replace(config, out=str(folder), resume=folder.exists())
            prepare_folder(own)
            if client:
                lend_cycle(folders[0], folder)
            run_inprocess(own, listener, present=(client,))
            summaries.append(read_summary(folder))
        write_summary(out, merged(summaries, config))


def merged(summaries: Sequence[Summary], config: RunConfig) -> Summary:
    """Return one summary of clients that learned alone: means of rates, sums of seconds."""
    by_cycle = zip(*(each["cycles"] for each in summaries), strict=True)
    cycles = [_entry(entries, config.clients) for entries in by_cycle]
    return {**summaries[0], "config": config.to_flat(), "cycles": cycles}


def mean_stats(stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Mean of some results on the same games; the interval is that of one client's number of games.

    What a win costs is the cost of all episodes over all wins, where every client has won something.
    """
    rate, episodes = fmean(each["win_rate"] for each in stats), stats[0]["episodes"]
    low, high = wilson(rate * episodes, episodes)
    means = {name: fmean(each[name] for each in stats) for name in ("score", "response_tokens", "invalid")}
    costs = {name: _cost(stats, name) for name in ("turns_per_win", "tokens_per_win")}
    return {"win_rate": rate, "low": low, "high": high, "episodes": episodes, **means, **costs}


def _cost(stats: Sequence[Mapping[str, Any]], name: str) -> float | None:
    if any(each[name] is None for each in stats):
        return None
    return float(sum(each[name] * each["win_rate"] for each in stats) / sum(each["win_rate"] for each in stats))


def _entry(entries: Sequence[Summary], clients: int) -> Summary:
    """One cycle; the seconds of devices are those of a fleet of so many."""
    first, decided = entries[0], Counter(entry["decision"] for entry in entries)
    seconds: Counter[str] = Counter()
    for entry in entries:
        seconds.update(entry["seconds"])
    learning = sum(spent for name, spent in seconds.items() if name not in MEASURED)
    families = {name: mean_stats([entry["families"][name] for entry in entries]) for name in first["families"]}
    transfer = {name: mean_stats([entry["transfer"][name] for entry in entries]) for name in first["transfer"]}
    probes = {name: fmean(entry["probes"][name] for entry in entries) for name in first["probes"]}
    return {
        **first, "held_out": mean_stats([entry["held_out"] for entry in entries]), "families": families,
        "transfer": transfer, "probes": probes, "teacher": None, "gate": None, "lessons": [], "choices": [],
        "version": f"{len({entry['version'] for entry in entries})} versions", "uplink_bytes": 0.0,
        "downlink_bytes": 0.0, "kl": fmean(entry["kl"] for entry in entries),
        "decision": ", ".join(sorted(decided)), "reason": _counted(decided),
        "accepted": sum(entry["accepted"] for entry in entries), "seconds": dict(seconds),
        "device_seconds": learning * clients / len(entries) if first["cycle"] else 0.0,
    }  # fmt: skip


def _counted(decided: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {decision}" for decision, count in sorted(decided.items()))
