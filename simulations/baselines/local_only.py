"""The lower bound: every client learns from its own play only, and is evaluated on the held-out games of all.

Each client's run is the federated run with the nodes of all other clients absent. Nothing is sent.
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
from ...server.evaluation import wilson
from ...server.phases import lend_cycle
from ...server.run_folder import prepare_folder
from ...server.summary import write_summary
from ..engines import check
from ..inprocess import run_inprocess
from ..summary import read_summary
from .baseline import Listener, in_the_open

Summary = dict[str, Any]
MEASURED = ("evaluate",)  # phases that are not needed for learning


@dataclass(frozen=True, kw_only=True)
class LocalOnly:
    """One run per client, and the mean of their results.

    Parameters
    ----------
    first
        Number of clients to run, starting with the first; 0 means all. A partition by family alternates families.
    """

    NAME: ClassVar[str] = "local-only"

    first: int = 0

    def check(self, config: RunConfig) -> RunConfig:
        """Return the configuration with the fewest games for the teacher, whose results are not reported."""
        if not 0 <= self.first <= config.clients:
            raise ConfigError(f"local-only first={self.first}: there are {config.clients} clients")
        alone = replace(in_the_open(config, self), games=replace(config.games, held_out_teacher=1))
        check(alone)
        return alone

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run the clients one after the other; they share the warm start and its evaluation."""
        out, summaries = Path(config.out), list[Summary]()
        folders = [out / f"client-{client}" for client in range(self.first or config.clients)]
        for client, folder in enumerate(folders):
            client_config = replace(config, out=str(folder), resume=folder.exists())
            prepare_folder(client_config)
            if client:
                lend_cycle(folders[0], folder)
            run_inprocess(client_config, listener, present=(client,))
            summaries.append(read_summary(folder))
        write_summary(out, merged(summaries, config))


def merged(summaries: Sequence[Summary], config: RunConfig) -> Summary:
    """Merge the clients' summaries: means of rates, sums of seconds."""
    by_cycle = zip(*(summary["cycles"] for summary in summaries), strict=True)
    cycles = [_entry(entries, config.clients) for entries in by_cycle]
    return {**summaries[0], "config": config.to_flat(), "cycles": cycles}


def mean_stats(stats: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return the mean of clients' results on the same games, with the interval for one client's number of games.

    The cost per win is the cost of all episodes over the number of all wins; None if a client has no win.
    """
    rate, episodes = fmean(item["win_rate"] for item in stats), stats[0]["episodes"]
    low, high = wilson(rate * episodes, episodes)
    means = {name: fmean(item[name] for item in stats) for name in ("score", "response_tokens", "invalid")}
    costs = {name: _cost(stats, name) for name in ("turns_per_win", "tokens_per_win")}
    return {"win_rate": rate, "low": low, "high": high, "episodes": episodes, **means, **costs}


def _cost(stats: Sequence[Mapping[str, Any]], name: str) -> float | None:
    if any(item[name] is None for item in stats):
        return None
    return float(sum(item[name] * item["win_rate"] for item in stats) / sum(item["win_rate"] for item in stats))


def _entry(entries: Sequence[Summary], clients: int) -> Summary:
    """Merge the clients' entries of one cycle; device seconds are extrapolated to a fleet of `clients`."""
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
