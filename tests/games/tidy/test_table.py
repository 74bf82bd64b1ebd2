"""The table of what belongs where: its size, its splits, and that no word gives the answer away."""

from __future__ import annotations

from collections import defaultdict
from itertools import permutations

import pytest

from fedoel.games.renamed import VERBS
from fedoel.games.tidy.home import MOST_IN_A_PLACE
from fedoel.games.tidy.table import SPLITS, load_table

TABLE = load_table()
ALIKE = 5  # so many equal letters at the beginning or end make two words related: "sauce", "saucepan"


def splits_by_word() -> dict[str, set[str]]:
    splits = defaultdict(set)
    for split in SPLITS:
        for things in TABLE.things[split].values():
            for thing in things:
                for word in thing.lower().split():
                    splits[word].add(split)
    return splits


def test_it_has_about_400_things_and_40_places() -> None:
    assert len(TABLE.prepositions) == 40 and set(TABLE.prepositions.values()) == {"in", "on"}
    assert len(TABLE.right_places) > 400
    assert {len(places) for places in TABLE.right_places.values()} == {1, 2, 3}


@pytest.mark.parametrize("split", SPLITS)
def test_every_place_is_right_for_things_of_every_split_that_belong_nowhere_else(split: str) -> None:
    for place, things in TABLE.things[split].items():
        assert len(set(things)) == len(things)
        assert sum(TABLE.right_places[thing] == {place} for thing in things) >= MOST_IN_A_PLACE, place


def test_no_word_is_in_two_splits() -> None:
    assert all(len(splits) == 1 for splits in splits_by_word().values())


def test_words_of_different_splits_are_not_related() -> None:
    splits = splits_by_word()
    for word, other in permutations(splits, 2):
        if splits[word] != splits[other]:
            assert len(word) < 4 or word not in other, (word, other)
            if min(len(word), len(other)) >= ALIKE:
                assert word[:ALIKE] != other[:ALIKE] and word[-ALIKE:] != other[-ALIKE:], (word, other)


def test_no_thing_is_named_like_a_place_where_it_belongs() -> None:
    for thing, places in TABLE.right_places.items():
        for word in thing.lower().split():
            for named in " ".join(places).lower().split():
                assert len(word) < 3 or word not in named, (thing, places)
                assert len(named) < 3 or named not in word, (thing, places)


def test_commands_are_read_unambiguously() -> None:
    for name in (*TABLE.right_places, *TABLE.prepositions):
        assert name == " ".join(name.split()) and not {"in", "on", "from"} & set(name.split())
        assert name.split()[0].lower() not in VERBS  # a reply that begins with it would be renamed
