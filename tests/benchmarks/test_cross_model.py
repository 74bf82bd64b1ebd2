"""A context that is carried to another model adds to scores there what it added here."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.codecs.codec import load_codec
from fedoel.codecs.embedding.codec import EmbeddingCodec
from fedoel.codecs.tactics.policy import uniform_policy
from fedoel.games.splits import Split
from fedoel.games.tidy.engine import put_command
from fedoel.games.tidy.table import load_table
from fedoel.protocol.situation import Situation
from fedoel.simulations.conformance.checks import EmbeddedPolicy

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks import cross_model, looked_up_fleet

HIDDEN, TURN = 96, np.linalg.qr(np.random.default_rng(5).normal(size=(96, 96)))[0].astype(np.float32)
BELONGS = np.full(HIDDEN, 0.5, np.float32)
RIGHT = {put_command(thing, place) for thing, places in load_table().right_places.items() for place in places}
Embed = Callable[[Situation], NDArray[np.float32]]


def embeddings(situation: Situation) -> NDArray[np.float32]:
    """Hidden states that differ by the words of a command, and by whether it puts a thing where it belongs."""
    return np.stack([hidden(command) + BELONGS * (command in RIGHT) for command in situation.choices])


def hidden(text: str) -> NDArray[np.float32]:
    rngs = [np.random.default_rng(list(word.encode())) for word in text.split()]
    return sum((rng.normal(size=HIDDEN).astype(np.float32) for rng in rngs), np.zeros(HIDDEN, np.float32))


@pytest.fixture
def fleet(monkeypatch: pytest.MonkeyPatch) -> Callable[[Embed], looked_up_fleet.LookedUpFleet]:
    counts = {Split.PRIVATE: 90, Split.REHEARSAL: 60, Split.HELD_OUT: 30}
    monkeypatch.setattr(looked_up_fleet, "COUNTS", counts)
    monkeypatch.setattr(looked_up_fleet, "COHORT", 20)
    monkeypatch.setattr(looked_up_fleet, "RELEASES", 2)
    turns = {split: looked_up_fleet.decisions(split, count) for split, count in counts.items()}

    def make(embed: Embed) -> looked_up_fleet.LookedUpFleet:
        policy, bare = EmbeddedPolicy(uniform_policy(), embed), load_codec("embedding")
        assert isinstance(bare, EmbeddingCodec)
        parameters = bare.parameters(policy, turns[Split.REHEARSAL])
        return looked_up_fleet.LookedUpFleet(bare.with_parameters(parameters), policy, turns)

    return make


def test_a_model_that_sees_the_same_from_elsewhere_takes_what_another_learned(
    fleet: Callable[[Embed], looked_up_fleet.LookedUpFleet],
) -> None:
    here, there = fleet(embeddings), fleet(lambda situation: embeddings(situation) @ TURN)
    start, *_, learned = here.contexts(0.0, cross_model.CONFIG, seed=1)
    carried = cross_model.carried(learned, here, there)
    assert there.chance(carried) == pytest.approx(here.chance(learned), abs=0.02)
    assert here.chance(learned) > here.chance(start) + 0.2


def test_what_is_printed_names_both_models_and_what_each_takes(
    fleet: Callable[[Embed], looked_up_fleet.LookedUpFleet],
) -> None:
    lines = cross_model.rows({"one": fleet(embeddings), "two": fleet(lambda s: embeddings(s) @ TURN)}, [1])
    assert [line.partition(":")[0] for line in lines] == [
        "two, own fleet, after each release", "two, from one", "one, own fleet, after each release", "one, from two",
    ]  # fmt: skip
