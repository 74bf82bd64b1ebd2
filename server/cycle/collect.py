"""Stage `collect`: what the cohort is asked in an exchange, and what came back.

With several exchanges a cycle, each part of the cohort plays under the context that the parts before it gave. A
gradient estimate is worth little far from the policy that it was measured under, so two short steps lead further than a
long one, and no device plays, sends or spends more for it: every node takes part in one exchange of a cycle.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import chain

from ...codecs.context import TeacherContext
from ...codecs.encoder import SendsWords
from ...protocol.errors import FedoelError
from ...protocol.experience import Aggregate, ExperienceVector, Vector, total
from ...protocol.messages import PlayRequest
from ...strategies.server_side import Traffic
from ..requests import signed
from .contender import Version
from .phases import Outcome
from .run import Run
from .streak import NAME as STREAK
from .streak import Streak, streak_in


@dataclass(frozen=True, slots=True)
class Collected:
    """What one exchange brought: the policy version that was asked about, its traffic and its aggregate, if any."""

    version: str
    traffic: Traffic
    aggregate: Aggregate | None


def request(
    run: Run, version: Version, cycle: int, exchange: int, context: TeacherContext, baseline: Vector | None
) -> PlayRequest:
    """Ask devices for their experience of a version under a context.

    Parameters
    ----------
    baseline
        Mean return-to-go by family and step, shape ``(families, horizon)``, of the version under this context; None if
        devices estimate it.
    """
    weights = context.weights if context.weights.any() else None
    spec = run.spec(version.name)
    asked = PlayRequest(cycle, exchange, spec, baseline, version.adapter, weights, parameters=run.parameters)
    return signed(asked, run.safeguards)


def keep(run: Run, cycle: int, exchange: int, collected: Collected) -> None:
    """Write down what an exchange brought."""
    aggregate, traffic = collected.aggregate, collected.traffic
    last = (cycle, exchange) if aggregate else _last(run, *_before(run, cycle, exchange))
    parts = aggregate.parts if aggregate else ()
    values = {
        **asdict(traffic), "refused": dict(traffic.refused), "cohort": aggregate.cohort if aggregate else 0,
        "noise": aggregate.noise if aggregate else 0.0, "version": collected.version,
        "vocabulary": run.codec.encoder.vocabulary,
        "parts": [part.cohort for part in parts], "words": list(aggregate.words) if aggregate else [],
        "last": list(last or ()),
    }  # fmt: skip
    arrays = {f"part-{number}": part.vector.to_array() for number, part in enumerate(parts)}
    arrays |= {"vector": aggregate.vector.to_array()} if aggregate else {}
    outcome = Outcome(values, arrays)
    if exchange == 1 and not isinstance(run.codec.encoder, SendsWords):  # words cannot be added up
        before = _streak(run, collected.version, cycle - 1)
        outcome = (before.plus(aggregate) if aggregate else before).beside(outcome)
    run.phases.keep(cycle, numbered("collect", exchange), outcome)


def load(run: Run, cycle: int, exchange: int) -> Collected:
    """Read what an exchange brought."""
    outcome = run.phases.load(cycle, numbered("collect", exchange))
    values, version = outcome.values, outcome.values.get("version", "")
    traffic = Traffic(values["uplink_bytes"], values["downlink_bytes"], values["accepted"], values["refused"])
    if "vector" not in outcome.arrays:
        return Collected(version, traffic, None)
    if values.get("vocabulary", run.codec.encoder.vocabulary) != run.codec.encoder.vocabulary:
        raise FedoelError(
            f"what cycle {cycle} collected was made with other coordinates of the codec {run.config.codec.name!r}: put "
            "back the codec as it was, or start another run"
        )
    spec, arrays = run.spec(version), {name: array for name, array in outcome.arrays.items() if name != STREAK}
    vectors = {name: ExperienceVector.unchecked(spec, array) for name, array in arrays.items()}
    parts = tuple(Aggregate(vectors[f"part-{n}"], cohort) for n, cohort in enumerate(values.get("parts", ())))
    words = tuple(values.get("words", ()))
    return Collected(version, traffic, Aggregate(vectors["vector"], values["cohort"], values["noise"], parts, words))


def collected_before(run: Run, cycle: int, exchange: int) -> Aggregate | None:
    """Return the last aggregate before an exchange, whichever version it was about; None if there is none."""
    last = _last(run, *_before(run, cycle, exchange))
    return load(run, *last).aggregate if last else None


def _last(run: Run, cycle: int, exchange: int) -> tuple[int, int] | None:
    """Return cycle and number of the last exchange up to this one that has an aggregate."""
    while cycle:
        if run.phases.finished(cycle, numbered("collect", exchange)):  # or an operator has ended it before
            values = run.phases.load(cycle, numbered("collect", exchange)).values
            if (last := values.get("last")) is not None:
                return (last[0], last[1]) if last else None
            if values["cohort"]:  # a release before kept no number
                return cycle, exchange
        cycle, exchange = _before(run, cycle, exchange)
    return None


def _before(run: Run, cycle: int, exchange: int) -> tuple[int, int]:
    """Return cycle and number of the exchange before; cycle 0 before the first."""
    return (cycle, exchange - 1) if exchange > 1 else (cycle - 1, len(run.exchanges))


def experience_about(run: Run, version: Version, cycle: int, exchange: int) -> Aggregate | None:
    """Return the experience that a cycle's context is made of: the sum of `aggregates_about`; None if there is none."""
    if exchange == 1 and not isinstance(run.codec.encoder, SendsWords):
        return _streak(run, version.name, cycle).aggregate(run.spec(version.name))
    aggregates = aggregates_about(run, version, cycle, exchange)
    return summed(aggregates) if aggregates else None


def _streak(run: Run, version: str, cycle: int) -> Streak:
    """Return the sum of what the cycles up to this one brought about a version, since another one was current."""
    streak, newer = Streak(), list[Aggregate]()
    for before in range(cycle, 0, -1):
        if not finished(run, before):  # an operator has chosen another version
            break
        outcome = run.phases.load(before, "collect")
        if outcome.values.get("version", "") != version:
            break
        if (kept := streak_in(outcome)) is not None:
            streak = kept
            break
        if (aggregate := load(run, before, 1).aggregate) is not None:  # a release before kept no sum
            newer.append(aggregate)
    for aggregate in reversed(newer):
        streak = streak.plus(aggregate)
    return streak


def has_parts(run: Run, cycle: int) -> bool:
    """Whether the first exchange of a cycle brought an aggregate in parts."""
    return bool(run.phases.load(cycle, "collect").values.get("parts"))


def aggregates_about(run: Run, version: Version, cycle: int, exchange: int) -> list[Aggregate]:
    """Return the aggregates that a cycle's context is made of, newest first.

    Where a cycle promoted nothing, its experience is still about the current version, and counts again. Only first
    exchanges do: later ones were played under a context of their own.
    """
    usable = [load(run, cycle, exchange)]
    if exchange == 1:
        for before in range(cycle - 1, 0, -1):
            if not finished(run, before) or (collected := load(run, before, 1)).version != version.name:
                break
            usable.append(collected)
    return [collected.aggregate for collected in usable if collected.aggregate is not None]


def summed(aggregates: Sequence[Aggregate]) -> Aggregate:
    """Add up aggregates that are ordered from the newest to the oldest; their words are ordered the other way round."""
    vector, words = total(aggregate.vector for aggregate in aggregates), [a.words for a in reversed(aggregates)]
    cohort, noise = sum(a.cohort for a in aggregates), sum(a.noise for a in aggregates)
    return Aggregate(vector, cohort, noise, words=tuple(chain.from_iterable(words)))


def traffic_of(run: Run, cycle: int) -> Traffic:
    """Return what a cycle's exchanges cost together: bytes as means per device, counts as sums."""
    parts = [load(run, cycle, exchange).traffic for exchange in finished(run, cycle)]
    refused = sum((Counter(part.refused) for part in parts), Counter[str]())
    # Parts of a cohort differ by one device at most. One from which nothing came says nothing about bytes.
    up = [part.uplink_bytes for part in parts if part.uplink_bytes]
    down = [part.downlink_bytes for part in parts if part.downlink_bytes]
    accepted = sum(part.accepted for part in parts)
    return Traffic(_mean(up), _mean(down), accepted, dict(sorted(refused.items())))


def cohort_of(run: Run, cycle: int) -> int:
    """Return how many devices' vectors count in a cycle; 0 if there is nothing to learn from."""
    aggregates = [load(run, cycle, exchange).aggregate for exchange in run.exchanges]
    return sum(aggregate.cohort for aggregate in aggregates if aggregate is not None)


def finished(run: Run, cycle: int) -> list[int]:
    """Return the exchanges of a cycle that are on disk: all of them, unless an operator has ended the cycle early."""
    return [exchange for exchange in run.exchanges if run.phases.finished(cycle, numbered("collect", exchange))]


def numbered(name: str, exchange: int) -> str:
    """Name of the file of an exchange: the first needs no number."""
    return name if exchange == 1 else f"{name}-{exchange}"


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0
