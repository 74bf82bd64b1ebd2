"""Numbers of several runs in one Markdown table: means over seeds, and from the lowest to the highest."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import fmean

from ..protocol.records.summary import CycleRecord, Floor, Stats, Summary

FLOORS = ("random", "heuristic", "walkthrough")


@dataclass(frozen=True, slots=True)
class Column:
    """A column: what it says of the runs of an arm and of a floor's results, and for which runs it is there."""

    name: str
    arm: Callable[[Sequence[Summary]], str]
    floor: Callable[[Sequence[Floor]], str] = lambda floors: ""
    wanted: Callable[[Sequence[Summary]], bool] = lambda runs: True


def arms_table(results: Mapping[str, Sequence[Summary]], refused: Mapping[str, str] | None = None) -> str:
    """Return one line an arm, and the floors of all runs below.

    The context is that of the last cycle. Bytes are of one client and cycle; device seconds are those in which the
    cohort worked, of the whole run. Columns that no run has anything to say to are left out.

    Parameters
    ----------
    refused
        Arms that cannot be run, and why.
    """
    everything = [run for runs in results.values() for run in runs]
    columns = [column for column in COLUMNS if column.wanted(everything)]
    columns += [_transfer_column(name) for name in dict.fromkeys(name for run in everything for name in run.transfer)]
    lines = [["arm", *(column.name for column in columns)]]
    lines += [[arm, *(column.arm(runs) for column in columns)] for arm, runs in results.items()]
    lines += [[arm, f"cannot: {why}", *[""] * (len(columns) - 1)] for arm, why in (refused or {}).items()]
    for name in FLOORS:
        floors = [run.floors.named()[name] for run in everything]
        lines.append([name, *(column.floor(floors) for column in columns)])
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(lines[0]), *written[1:]])


def worlds_table(worlds: Mapping[str, Mapping[str, Sequence[Summary]]]) -> str:
    """Return one line an arm and one column a world: mean scores of held-out games at the end, in percent.

    The score is the share of wins where nothing else is scored. The first line is where the language model starts, the
    next ones are play without learning.
    """
    arms = list(dict.fromkeys(arm for results in worlds.values() for arm in results))
    lines = [["", *worlds]]
    lines.append(["start", *(_start_score(results) for results in worlds.values())])
    for floor in FLOORS:
        lines.append(
            [
                floor,
                *(
                    _scores([run.floors.named()[floor] for runs in results.values() for run in runs])
                    for results in worlds.values()
                ),
            ]
        )
    for arm in arms:
        ends = [
            [record.held_out for record in _end(results[arm])] if arm in results else [] for results in worlds.values()
        ]
        lines.append([arm, *(f"**{_scores(stats)}**" if stats else "not run" for stats in ends)])
    written = ["| " + " | ".join(line) + " |" for line in lines]
    return "\n".join([written[0], "|" + "---|" * len(lines[0]), *written[1:]])


def _start_score(results: Mapping[str, Sequence[Summary]]) -> str:
    """Say where the arms with a language model start."""
    runs = [run for some in results.values() for run in some if run.config.get("policy.backend") != "tactics"]
    return _scores([record.held_out for record in _start(runs)]) if runs else "-"


def _scores(stats: Sequence[Stats]) -> str:
    return spread([100 * result.score for result in stats], "{:.0f}", " %")


def rates(stats: Sequence[Stats]) -> str:
    """Say win rates in percent."""
    return spread([100 * result.win_rate for result in stats], "{:.0f}", " %")


def spread(values: Sequence[float | None], form: str, unit: str = "") -> str:
    """Say a mean with its lowest and highest value; a price that some run never paid has no mean."""
    known = [value for value in values if value is not None]
    if len(known) < len(values) or not known:
        return "-"
    low, mean, high = (form.format(value) for value in (min(known), fmean(known), max(known)))
    return f"{mean}{unit}" if low == high else f"{mean}{unit} ({low}-{high})"


def lowest_change(run: Summary) -> float | None:
    """Smallest change of held-out wins from one cycle to the next, in points; None without any cycle."""
    wins = [100 * record.held_out.win_rate for record in run.cycles]
    return min((after - before for before, after in pairwise(wins)), default=None)


def _start(runs: Sequence[Summary]) -> list[CycleRecord]:
    return [run.cycles[0] for run in runs]


def _end(runs: Sequence[Summary]) -> list[CycleRecord]:
    return [run.cycles[-1] for run in runs]


def _held_out(
    value_of: Callable[[Stats], float | None], form: str, unit: str = ""
) -> Callable[[Sequence[Summary]], str]:
    """Say one of the held-out results of the last cycle."""
    return lambda runs: spread([value_of(record.held_out) for record in _end(runs)], form, unit)


def _at_the_end(value_of: Callable[[CycleRecord], object]) -> Callable[[Sequence[Summary]], bool]:
    """Whether the last cycle of any run has a value."""
    return lambda runs: any(value_of(record) for record in _end(runs))


def _gain(runs: Sequence[Summary]) -> str:
    pairs = zip(_start(runs), _end(runs), strict=True)
    gains = [100 * (after.held_out.win_rate - before.held_out.win_rate) for before, after in pairs]
    return spread(gains, "{:+.0f}")


def _decisions(runs: Sequence[Summary]) -> str:
    return ", ".join(sorted({record.decision for run in runs for record in run.cycles[1:]}))


def cohort_seconds(record: CycleRecord) -> float:
    """Seconds of a cycle in which devices worked, all of them together: they played, unless the record says more."""
    if record.device_seconds is not None:
        return record.device_seconds
    return sum(seconds for name, seconds in record.seconds.items() if name.partition("-")[0] == "collect")


def _device_seconds(runs: Sequence[Summary]) -> str:
    return spread([sum(map(cohort_seconds, run.cycles)) for run in runs], "{:.0f}")


def _perplexity(runs: Sequence[Summary]) -> str:
    pairs = [(record.probes.get("perplexity"), record.probes.get("base_perplexity")) for record in _end(runs)]
    return spread([own / base if own and base else None for own, base in pairs], "{:.3f}")


def _instructions(runs: Sequence[Summary]) -> str:
    shares = [(record.probes.get("instructions"), record.probes.get("base_instructions")) for record in _end(runs)]
    own, base = (
        spread([None if share is None else 100 * share for share in side], "{:.0f}", " %")
        for side in zip(*shares, strict=True)
    )
    return "-" if own == "-" else f"{own}, base {base}"


def _transfer_column(name: str) -> Column:
    """Wins in games that nobody learned from, before anything was learned and at the end."""

    def played(records: Sequence[CycleRecord] | Sequence[Floor]) -> str:
        stats = [record.transfer[name] for record in records if name in record.transfer]
        return rates(stats) if len(stats) == len(records) else "-"

    def arm(runs: Sequence[Summary]) -> str:
        return f"{played(_start(runs))} → **{played(_end(runs))}**"

    return Column(name, arm, played)


COLUMNS = (
    Column("start", lambda runs: rates([record.held_out for record in _start(runs)])),
    Column("with the context", lambda runs: rates([record.teacher for record in _end(runs) if record.teacher])),
    Column("after consolidation", lambda runs: f"**{rates([record.held_out for record in _end(runs)])}**", rates),
    Column("gain", _gain),
    Column("turns per win", _held_out(lambda stats: stats.turns_per_win, "{:.1f}")),
    Column("bytes sent", lambda runs: spread([record.uplink_bytes for record in _end(runs)], "{:,.0f}")),
    Column("device seconds", _device_seconds),
    Column("decisions", _decisions),
    Column(
        "tokens per win",
        _held_out(lambda stats: stats.tokens_per_win, "{:,.0f}"),
        wanted=_at_the_end(lambda record: record.held_out.tokens_per_win),
    ),
    Column(
        "tokens of an answer",
        _held_out(lambda stats: stats.response_tokens, "{:.1f}"),
        wanted=_at_the_end(lambda record: record.held_out.response_tokens),
    ),
    Column(
        "no command",
        _held_out(lambda stats: 100 * stats.invalid, "{:.0f}", " %"),
        wanted=_at_the_end(lambda record: record.held_out.response_tokens),
    ),
    Column(
        "lowest change in a cycle",
        lambda runs: spread([lowest_change(run) for run in runs], "{:+.0f}"),
        wanted=lambda runs: any(len(run.cycles) > 2 for run in runs),
    ),
    Column("perplexity / base", _perplexity, wanted=_at_the_end(lambda record: record.probes.get("perplexity"))),
    Column("instructions", _instructions, wanted=_at_the_end(lambda record: "instructions" in record.probes)),
)
