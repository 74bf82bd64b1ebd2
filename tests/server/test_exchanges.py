"""What several cycles gave about one version adds up; what speaks of another version does not."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig
from fedoel.protocol.experience import Aggregate, ExperienceVector
from fedoel.server.events import EventLog
from fedoel.server.exchanges import Current, Exchanges, spec_of
from fedoel.server.fleet import make_fleet
from fedoel.server.game_plan import GamePlan
from fedoel.server.phases import Phases
from fedoel.server.public import PublicGames
from fedoel.server.safeguards import RunSafeguards
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.strategies.consolidator import Traffic

GAMES = GamesConfig(families="frozen-lake size=3 turns=3", per_client=1, rehearsal=2, gate=2, held_out=2)


@pytest.fixture
def exchanges(tmp_path: Path, cache: Path) -> Iterator[Exchanges]:
    config = RunConfig(games=GAMES, policy=PolicyConfig(backend="tactics"), out=str(tmp_path))
    make_fleet(tmp_path / "keys", 2)
    plan = GamePlan.of(config)
    with EventLog(tmp_path / "events.jsonl") as log:
        yield Exchanges(
            config, PublicGames(plan, cache), TacticsLearner(), Phases(tmp_path, log), RunSafeguards(config)
        )


def collect(exchanges: Exchanges, current: Current, cycle: int, gradient: float | None) -> None:
    """Go through one exchange of a cycle."""
    exchanges.request(current, cycle, 1)
    spec = spec_of(exchanges.config, exchanges.codec.encoder, exchanges.public.plan, current.version)
    aggregate = None
    if gradient is not None:
        parts = {"gradient": np.full(spec.dimension, gradient), "fisher": np.ones(spec.dimension)}
        aggregate = Aggregate(ExperienceVector.from_parts(spec, parts), 10, 0.5, words=(f"cycle {cycle}",))
    exchanges.collect(cycle, 1, aggregate, Traffic(0.0, 0.0, 10, {}))


def test_cycles_that_promoted_nothing_add_up(exchanges: Exchanges) -> None:
    first = Current("first", TacticsLearner().warm_start([], lambda n: None))
    for cycle, gradient in ((1, 1.0), (2, None), (3, 2.0)):
        collect(exchanges, first, cycle, gradient)
    found = exchanges._aggregate(first, 3, 1)
    assert found is not None and (found.cohort, found.noise) == (20, 1.0)
    assert (found.vector.gradient == 3.0).all() and (found.vector.fisher == 2.0).all()
    assert found.words == ("cycle 1", "cycle 3")


def test_the_server_learns_from_its_rehearsal_as_a_device_does(exchanges: Exchanges) -> None:
    current = Current("first", TacticsLearner().warm_start([], lambda n: None))
    exchanges.request(current, 1, 1)
    own = exchanges.reference(current, 1, 1)
    assert own.counters.episodes.sum() == GAMES.rehearsal and own.fisher.any()
    assert own.spec.policy_version == "first"


def test_what_was_kept_last_is_found_again_with_its_parts(exchanges: Exchanges) -> None:
    current = Current("first", TacticsLearner().warm_start([], lambda n: None))
    assert exchanges.collected_before(current, 1, 1) is None
    collect(exchanges, current, 1, 1.0)
    collect(exchanges, current, 2, None)
    found = exchanges.collected_before(current, 3, 1)
    assert found is not None and (found.cohort, found.parts) == (10, ()) and (found.vector.gradient == 1.0).all()


def test_another_version_starts_anew(exchanges: Exchanges) -> None:
    first = Current("first", TacticsLearner().warm_start([], lambda n: None))
    second = replace(first, version="second")
    collect(exchanges, first, 1, 1.0)
    collect(exchanges, second, 2, 2.0)
    found = exchanges._aggregate(second, 2, 1)
    assert found is not None and found.cohort == 10 and (found.vector.gradient == 2.0).all()
