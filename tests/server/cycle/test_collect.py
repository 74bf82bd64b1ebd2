"""What several cycles gave about one version adds up; what is about another version does not."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from fedoel.protocol.errors import FedoelError
from fedoel.protocol.experience import Aggregate, ExperienceVector
from fedoel.server.cycle.collect import Collected, aggregates_about, cohort_of, keep, load, summed, traffic_of
from fedoel.server.cycle.contender import Version
from fedoel.server.cycle.phases import Outcome
from fedoel.server.cycle.server import CycleServer
from fedoel.strategies.server_side import Traffic


def exchange(server: CycleServer, version: Version, cycle: int, gradient: float | None) -> None:
    """Go through one exchange of a cycle, about a version."""
    server._state = replace(server.state, version=version)
    server.request(cycle, 1)
    spec = server.run.spec(version.name)
    aggregate = None
    if gradient is not None:
        parts = {"gradient": np.full(spec.dimension, gradient), "fisher": np.ones(spec.dimension)}
        aggregate = Aggregate(ExperienceVector.from_parts(spec, parts), 10, 0.5, words=(f"cycle {cycle}",))
    server.collect(cycle, 1, aggregate, Traffic(8.0 * cycle, 0.0, 10, {"late": cycle}))


def test_cycles_that_promoted_nothing_add_up(server: CycleServer) -> None:
    version = server.state.version
    for cycle, gradient in ((1, 1.0), (2, None), (3, 2.0)):
        exchange(server, version, cycle, gradient)
    aggregate = summed(aggregates_about(server.run, version, 3, 1))
    assert (aggregate.cohort, aggregate.noise) == (20, 1.0)
    assert (aggregate.vector.gradient == 3.0).all() and (aggregate.vector.fisher == 2.0).all()
    assert aggregate.words == ("cycle 1", "cycle 3")
    assert [cohort_of(server.run, cycle) for cycle in (1, 2, 3)] == [10, 0, 10]
    assert traffic_of(server.run, 3) == Traffic(24.0, 0.0, 10, {"late": 3})


def test_another_version_starts_anew(server: CycleServer) -> None:
    first = server.state.version
    second = replace(first, name="second")
    exchange(server, first, 1, 1.0)
    exchange(server, second, 2, 2.0)
    [aggregate] = aggregates_about(server.run, second, 2, 1)
    assert aggregate.cohort == 10 and (aggregate.vector.gradient == 2.0).all()


def test_the_server_learns_from_its_rollouts_as_a_device_does(server: CycleServer) -> None:
    server.request(1, 1)
    reference = server.reference(1, 1)
    assert reference.counters.episodes.sum() == server.run.config.games.rehearsal and reference.fisher.any()
    assert reference.spec.policy_version == server.state.version.name


def test_the_last_aggregate_before_an_exchange_is_read_from_disk(server: CycleServer) -> None:
    version = server.state.version
    assert server.collected_before(1, 1) is None
    exchange(server, version, 1, 1.0)
    exchange(server, version, 2, None)
    before = server.collected_before(3, 1)
    assert before is not None and (before.cohort, before.parts) == (10, ()) and (before.vector.gradient == 1.0).all()


def test_an_aggregate_in_parts_survives_the_disk(server: CycleServer) -> None:
    spec = server.run.spec("v")
    vectors = [
        ExperienceVector.from_parts(spec, {"gradient": np.full(spec.dimension, g), "fisher": np.ones(spec.dimension)})
        for g in (1.0, 2.0, 3.0)
    ]
    parts = (Aggregate(vectors[0], 4), Aggregate(vectors[1], 6))
    traffic = Traffic(1.0, 2.0, 10, {"late": 1})
    keep(server.run, 1, 1, Collected("v", traffic, Aggregate(vectors[2], 10, 0.25, parts, ("a", "b"))))
    read = load(server.run, 1, 1)
    aggregate = read.aggregate
    assert aggregate is not None and (read.version, read.traffic) == ("v", traffic)
    assert (aggregate.cohort, aggregate.noise, aggregate.words) == (10, 0.25, ("a", "b"))
    assert [part.cohort for part in aggregate.parts] == [4, 6]
    assert [float(part.vector.gradient[0]) for part in aggregate.parts] == [1.0, 2.0]
    keep(server.run, 1, 2, Collected("v", traffic, None))
    assert load(server.run, 1, 2) == Collected("v", traffic, None)


def test_what_was_made_with_other_coordinates_is_refused(server: CycleServer) -> None:
    exchange(server, server.state.version, 1, 1.0)
    run = server.run
    kept = run.phases.load(1, "collect")
    assert load(run, 1, 1).aggregate is not None
    run.phases.keep(1, "collect", Outcome({**kept.values, "vocabulary": "another"}, kept.arrays))
    with pytest.raises(FedoelError, match="made with other coordinates of the codec 'tactics'"):
        load(run, 1, 1)
