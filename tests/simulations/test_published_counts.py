"""What a private run publishes: the same numbers whatever the size of the cohorts that were drawn.

Two runs of the same fleet differ in how many devices their cohorts had, as two fleets do that differ in one device.
Everything that leaves the server is compared, but for what is made of the noisy sums.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import RunConfig, Scalar
from fedoel.protocol.experience import Aggregate
from fedoel.server.cycle.server import CycleServer
from fedoel.server.gate import Decisions, Verdict
from fedoel.server.registry import VERSIONS
from fedoel.server.summary import bounds_of
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies.mean import BudgetStrategy

PRIVATE: dict[str, Scalar] = {
    "name": "small", "clients": 9, "cycles": 2, "games.families": "frozen-lake size=3 turns=6", "games.per-client": 4,
    "games.rehearsal": 4, "games.gate": 4, "games.held-out": 4, "policy.backend": "tactics", "server.public": "games",
    "privacy.epsilon": 8.0, "codec.clipping-norm": 2.0,
}  # fmt: skip
NAMES = {"distributed": "secure-mean", "central": "central-mean"}
OF_THE_SUM = {"version", "parent", "lessons", "gate"}  # fields of a manifest that are made of the noisy sum


@dataclass
class Published:
    """What left the server, and what strategies handed on."""

    aggregates: list[Aggregate | None] = field(default_factory=list)
    manifests: list[dict[str, Any]] = field(default_factory=list)


def numbers(value: Any) -> Iterator[float]:
    """Yield every number in nested values, those in texts as well."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield value
    elif isinstance(value, str):
        yield from (float(word) for word in value.replace(",", " ").split() if word.isdecimal())


def run(folder: Path, cache: Path, drawn: int, monkeypatch: pytest.MonkeyPatch, mechanism: str) -> Published:
    """Make a run whose cohorts have exactly so many devices."""
    published, draw, collect = Published(), BudgetStrategy.draw, CycleServer.collect

    def collected(server: Any, cycle: int, exchange: int, aggregate: Any, traffic: Any) -> None:
        published.aggregates.append(aggregate)
        collect(server, cycle, exchange, aggregate, traffic)

    with monkeypatch.context() as patch:
        patch.setattr(BudgetStrategy, "draw", lambda *arguments: draw(*arguments)[:drawn])
        patch.setattr(CycleServer, "collect", collected)
        for decision in ("context_helps", "candidate_holds"):  # whatever the noise says: versions are published
            patch.setattr(Decisions, decision, lambda *_, **__: Verdict(True, "promoted by the test"))
        changed = {"privacy.mechanism": mechanism, "strategy.name": NAMES[mechanism]}
        settings = {**PRIVATE, **changed, "cache": str(cache), "out": str(folder)}
        run_inprocess(RunConfig.from_flat(settings))
    for path in sorted((folder / VERSIONS).glob("*/manifest.json")):
        published.manifests.append(json.loads(path.read_text()))
    return published


@pytest.mark.parametrize("mechanism", ["distributed", "central"])
def test_nothing_that_is_published_says_how_many_took_part(
    mechanism: str, tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    more, less = (run(tmp_path / f"{n}", cache, n, monkeypatch, mechanism) for n in (9, 7))
    for name in ("cohort", "noise", "parts", "words"):
        assert [getattr(a, name) for a in more.aggregates] == [getattr(a, name) for a in less.aggregates]
    assert all(a is not None and a.cohort == 9 and a.noise > 0 for a in less.aggregates)
    assert len(more.manifests) > 1 and len(less.manifests) > 1
    for manifest in less.manifests:
        said = {name: value for name, value in manifest.items() if name not in OF_THE_SUM}
        assert 7 not in numbers(said)
    assert bounds_of(less.manifests[-1]["cohort"]) == bounds_of(more.manifests[-1]["cohort"])
