"""The lower bound: every client learns from its own play only, and is evaluated on the held-out games of all.

Each client's run is the federated run with the nodes of all other clients absent. Nothing is sent.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import ClassVar

from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.records.events import Listener
from ...protocol.records.summary import CycleRecord, Stats, Summary
from ...server.cycle.phases import lend_cycle
from ...server.evaluation import wilson
from ...server.run_folder import prepare_folder
from ...server.summary import read_summary, write_summary
from ..inprocess import check, run_inprocess
from .baseline import in_the_open

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
    by_cycle = zip(*(summary.cycles for summary in summaries), strict=True)
    cycles = tuple(_merged_cycle(records, config.clients) for records in by_cycle)
    return replace(summaries[0], config=config.to_flat(), cycles=cycles)


def mean_stats(stats: Sequence[Stats]) -> Stats:
    """Return the mean of clients' results on the same games, with the interval for one client's number of games.

    The cost per win is the cost of all episodes over the number of all wins; None if a client has no win.
    """
    rate, episodes = fmean(client.win_rate for client in stats), stats[0].episodes
    low, high = wilson(rate * episodes, episodes)
    means = {name: fmean(getattr(client, name) for client in stats) for name in ("score", "response_tokens", "invalid")}
    turns, tokens = (_cost(stats, name) for name in ("turns_per_win", "tokens_per_win"))
    return Stats(
        win_rate=rate, low=low, high=high, episodes=episodes, turns_per_win=turns, tokens_per_win=tokens, **means
    )  # fmt: skip


def _cost(stats: Sequence[Stats], name: str) -> float | None:
    costs = [getattr(client, name) for client in stats]
    if None in costs:
        return None
    rates = [client.win_rate for client in stats]
    return float(sum(cost * rate for cost, rate in zip(costs, rates, strict=True)) / sum(rates))


def _merged_cycle(records: Sequence[CycleRecord], clients: int) -> CycleRecord:
    """Merge the clients' records of one cycle; device seconds are extrapolated to a fleet of `clients`."""
    first, decided = records[0], Counter(record.decision for record in records)
    reason = ", ".join(f"{count} {decision}" for decision, count in sorted(decided.items()))
    seconds: Counter[str] = Counter()
    for record in records:
        seconds.update(record.seconds)
    learning = sum(spent for name, spent in seconds.items() if name not in MEASURED)
    return replace(
        first, held_out=mean_stats([record.held_out for record in records]),
        families={name: mean_stats([record.families[name] for record in records]) for name in first.families},
        transfer={name: mean_stats([record.transfer[name] for record in records]) for name in first.transfer},
        probes={name: fmean(record.probes[name] for record in records) for name in first.probes},
        teacher=None, gate=None, lessons=(), choices=(),
        version=f"{len({record.version for record in records})} versions", uplink_bytes=0.0, downlink_bytes=0.0,
        kl=fmean(record.kl for record in records), decision=", ".join(sorted(decided)), reason=reason,
        accepted=sum(record.accepted for record in records), seconds=dict(seconds),
        device_seconds=learning * clients / len(records) if first.cycle else 0.0,
    )  # fmt: skip
