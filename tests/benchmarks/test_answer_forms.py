"""The benchmark of answer forms: the same homes in every form, and a head that finds what decides."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from fedoel.games.tidy.table import load_table

sys.path.append(str(Path(__file__).resolve().parents[2]))

from benchmarks.answer_forms import FORMS, PLACES, fitted, situations


@pytest.mark.parametrize("form", FORMS)
def test_the_right_answer_is_the_same_in_every_form(form: str) -> None:
    right_places, table = situations("test", 12, 3, "place"), load_table().right_places
    for (bare, right), (situation, index) in zip(right_places, situations("test", 12, 3, form), strict=True):
        assert len(set(situation.choices)) == PLACES and index == right
        assert situation.place_text == bare.place_text
        assert situation.choices[right].endswith(bare.choices[right])
        thing = bare.place_text.partition("In your hands: ")[2].partition(".")[0]
        assert bare.choices[right] in table[thing]


def test_the_head_finds_what_decides() -> None:
    rng = np.random.default_rng(0)
    features, truth = rng.normal(size=(400, 4, 8)), 2 * rng.normal(size=8)
    right = (features @ truth).argmax(1)
    weights = fitted(features[:300], right[:300])
    assert np.mean((features[300:] @ weights).argmax(1) == right[300:]) > 0.9
