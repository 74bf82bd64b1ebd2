"""Records: whatever can be written is read back the same, and what cannot be read is said by name."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, get_type_hints

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedoel.protocol.errors import ConfigError
from fedoel.protocol.formats import RECORDS as FORMAT
from fedoel.protocol.records.events import EVENTS, Event, event_from_json, event_to_json
from fedoel.protocol.records.json_codec import from_json, from_stored, to_json, to_stored
from fedoel.protocol.records.summary import CycleRecord, Floor, Measures, Results, Stats, Summary
from fedoel.protocol.versions import Manifest
from fedoel.server.summary import read_summary, write_summary
from fedoel.simulations.experiment import read_results
from fedoel.simulations.summary import load_summary

COMMITTED = Path(__file__).resolve().parents[3] / "benchmarks" / "results"
SUMMARIES = sorted(COMMITTED.glob("*/summary.json"))
RESULTS = ("federation-coin", "knowledge-steps", "transfer", "privacy", "loop")
FLOATS = st.floats(allow_nan=False, allow_infinity=False)
st.register_type_strategy(float, FLOATS)
st.register_type_strategy(Stats, st.builds(Stats))  # and no records that extend it
FLAT = {name: kind for name, kind in get_type_hints(Floor).items() if name != "cycles"}  # a floor holds floors
FLOORS = st.builds(Floor, **{name: st.from_type(kind) for name, kind in FLAT.items()}, cycles=st.none())
st.register_type_strategy(Floor, st.builds(replace, FLOORS, cycles=st.none() | st.lists(FLOORS, max_size=2).map(tuple)))


def through_json(table: Any) -> Any:
    return json.loads(json.dumps(table))


RECORDS = {
    Summary: st.builds(Summary, floors=st.just(load_summary(SUMMARIES[0].parent).floors), cycles=st.just(())),
    CycleRecord: st.from_type(CycleRecord),
    Floor: st.from_type(Floor),
    Manifest: st.from_type(Manifest),
    Measures: st.from_type(Measures),
}


@pytest.mark.parametrize("record_type", RECORDS)
def test_what_is_written_is_read_the_same(record_type: type[Any]) -> None:
    @settings(max_examples=30)
    @given(RECORDS[record_type])
    def check(record: Any) -> None:
        assert from_stored(record_type, through_json(to_stored(record)), "file", "remedy") == record

    check()


@pytest.mark.parametrize("event_type", EVENTS.values())
def test_events_are_read_as_they_are_written(event_type: type[Event]) -> None:
    @settings(max_examples=15)
    @given(st.from_type(event_type))
    def check(event: Event) -> None:
        assert event_from_json(through_json(event_to_json(event)), "file") == event

    check()


@given(st.from_type(Stats), st.from_type(Results))
def test_overall_results_lose_nothing_but_the_families(stats: Stats, results: Results) -> None:
    assert Results.of(stats).overall() == stats
    assert Results.of(results, results.families) == results
    assert "families" not in to_json(Results.of(stats))


def kept(before: Any, after: Any) -> bool:
    """Whether all keys and values of one JSON value are in another."""
    if isinstance(before, dict):
        return all(name in after and kept(value, after[name]) for name, value in before.items())
    if isinstance(before, list):
        return len(before) == len(after) and all(map(kept, before, after))
    return bool(before == after)


@pytest.mark.parametrize("path", SUMMARIES, ids=lambda path: path.parent.name)
def test_committed_summaries_of_the_first_schema_are_read_and_written_whole(path: Path, tmp_path: Path) -> None:
    before, summary = json.loads(path.read_bytes()), load_summary(path.parent)
    assert "schema" not in before
    after = json.loads(write_summary(tmp_path, summary).read_bytes())
    assert after["schema"] == FORMAT.current and kept(before, after)
    assert read_summary(tmp_path) == summary


@pytest.mark.parametrize("name", RESULTS)
def test_committed_results_of_experiments_are_read_whole(name: str) -> None:
    path = COMMITTED / name / "results.json"
    results = {arm: [to_stored(run) for run in runs] for arm, runs in read_results(path).items()}
    assert kept(json.loads(path.read_bytes()), results)


@pytest.mark.parametrize(
    ("keys", "value", "says"),
    [
        (("schema",), 3, "is of schema 3 and this fedoel reads up to 2: update fedoel"),
        (("schema",), "new", "names no schema: schema must be a whole number from 1 on, not 'new'"),
        (("schema",), "2", "names no schema: schema must be a whole number from 1 on, not '2'"),
        (("schema",), 0, "names no schema: schema must be a whole number from 1 on, not 0"),
        (("schema",), True, "names no schema"),
        (("colour",), "red", "colour is not a field of a record of schema 2"),
        (("seed",), "0", "seed must be a whole number, not '0'"),
        (("seed",), True, "seed must be a whole number, not True"),
        (("config", "clients"), None, "config.clients must be a text, a number, or true or false, not null"),
        (("cycles",), {}, "cycles must be a list, not a table"),
        (("cycles", 1, "gate", "current", "low"), None, r"cycles\[1\].gate.current.low must be a number, not null"),
        (("cycles", 1, "families"), [], r"cycles\[1\].families must be a table, not a list"),
        (("floors", "random"), 1, "floors.random must be a table, not 1"),
        (("cycles", 1, "held_out", "win_rate"), ..., r"cycles\[1\].held_out.win_rate is missing"),
    ],
)
def test_what_cannot_be_read_is_named(keys: tuple[Any, ...], value: object, says: str, tmp_path: Path) -> None:
    table = json.loads(SUMMARIES[0].read_bytes())
    part = table
    for key in keys[:-1]:
        part = part[key]
    if value is ...:
        del part[keys[-1]]
    else:
        part[keys[-1]] = value
    (tmp_path / "summary.json").write_text(json.dumps(table))
    with pytest.raises(ConfigError, match=f"summary.json.*{says}"):
        read_summary(tmp_path)


def test_whole_numbers_stand_for_fractions_and_not_the_other_way_round() -> None:
    table = to_json(Stats(win_rate=1, low=0, high=1, episodes=2, score=1, turns_per_win=3, tokens_per_win=None))
    read = from_json(Stats, table)
    assert type(read.win_rate) is float
    with pytest.raises(ValueError, match="episodes must be a whole number"):
        from_json(Stats, {**table, "episodes": 2.0})
    with pytest.raises(ValueError, match="score must be a number, not 9999"):
        from_json(Stats, {**table, "score": int("9" * 400)})
