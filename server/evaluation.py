"""Measuring a policy: win rates with intervals, and what a win costs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from ..protocol.play import Trajectory
from ..protocol.records.summary import Stats

Z95 = 1.959964
UNKNOWN = Stats(win_rate=0.0, low=0.0, high=1.0, episodes=0, score=0.0, turns_per_win=None, tokens_per_win=None)
"""Results where nobody says any, or no episode was played."""


def summarise(trajectories: Sequence[Trajectory]) -> Stats:
    """Sum up at least one episode."""
    wins, episodes = sum(t.won for t in trajectories), len(trajectories)
    low, high = wilson(wins, episodes)
    turns = sum(len(t.turns) for t in trajectories)
    tokens = sum(t.prompt_tokens for t in trajectories)
    return Stats(
        win_rate=wins / episodes, low=low, high=high, episodes=episodes, score=fmean(t.score for t in trajectories),
        turns_per_win=turns / wins if wins else None,
        tokens_per_win=tokens / wins if wins else None,
        response_tokens=sum(t.response_tokens for t in trajectories) / max(turns, 1),
        invalid=sum(not turn.valid for t in trajectories for turn in t.turns) / max(turns, 1),
    )  # fmt: skip


def combined(parts: Sequence[Stats]) -> Stats:
    """Return the results over all episodes of at least one part; `turns_per_win` is None if a part has no win."""
    episodes = sum(part.episodes for part in parts)
    if not episodes:
        return UNKNOWN
    wins = [part.win_rate * part.episodes for part in parts]
    low, high = wilson(sum(wins), episodes)

    def mean(name: str) -> float:
        return math.fsum(getattr(part, name) * part.episodes for part in parts) / episodes

    def per_win(name: str) -> float | None:
        costs = [getattr(part, name) for part in parts]
        if None in costs:
            return None
        return math.fsum(cost * won for cost, won in zip(costs, wins, strict=True)) / math.fsum(wins)

    return Stats(
        win_rate=sum(wins) / episodes, low=low, high=high, episodes=episodes, score=mean("score"),
        turns_per_win=per_win("turns_per_win"), tokens_per_win=per_win("tokens_per_win"),
        response_tokens=mean("response_tokens"), invalid=mean("invalid"),
    )  # fmt: skip


def by_family(trajectories: Sequence[Trajectory]) -> dict[str, Stats]:
    """Sum up each family by itself, in the order in which they first appear."""
    families = dict.fromkeys(t.spec.family for t in trajectories)
    return {name: summarise([t for t in trajectories if t.spec.family == name]) for name in families}


def stats_of_wins(wins: float, episodes: float) -> Stats:
    """Return results of which only the wins are known; sums that were rounded count as whole episodes."""
    number = round(episodes)
    if not number:
        return UNKNOWN
    won = min(max(round(wins), 0), number)
    low, high = wilson(won, number)
    return Stats(
        win_rate=won / number, low=low, high=high, episodes=number, score=won / number, turns_per_win=None,
        tokens_per_win=None,
    )  # fmt: skip


def wilson(wins: float, episodes: int) -> tuple[float, float]:
    """95 % score interval of a proportion (Wilson 1927): stays inside 0 and 1, and is not empty at either end."""
    p, z2 = wins / episodes, Z95**2
    centre = p + z2 / (2 * episodes)
    spread = Z95 * math.sqrt(p * (1 - p) / episodes + z2 / (4 * episodes**2))
    scale = 1 + z2 / episodes
    return max(0.0, (centre - spread) / scale), min(1.0, (centre + spread) / scale)
