"""Only knowledge of things helps: what can be counted in training games says nothing about held-out ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.games.splits import Split, for_split, game_seed
from fedoel.games.tidy.home import draw_home
from fedoel.games.tidy.table import load_table
from fedoel.protocol.play import GameSpec

PLACES = 4
NAMES = {place: index for index, place in enumerate(load_table().prepositions)}
STEPS, STEP_SIZE, DECAY = 80, 4.0, 1e-4


@dataclass(frozen=True)
class Questions:
    """One thing and four places a game: which is right?"""

    things: tuple[str, ...]
    places: NDArray[np.int64]  # indices into NAMES, shape (games, PLACES)
    right: NDArray[np.int64]  # index of the right one among them, shape (games,)


def questions(split: Split, count: int) -> Questions:
    content = str(dict(for_split(GameSpec.parse("tidy turns=6"), split).settings)["split"])
    homes = [draw_home(load_table(), 1, 1, PLACES, content, game_seed(split, index)) for index in range(count)]
    targets = [next(iter(home.targets.items())) for home in homes]
    return Questions(
        tuple(thing for thing, _ in targets),
        np.array([[NAMES[place] for place in home.places[0]] for home in homes]),
        np.array([home.places[0].index(place) for home, (_, place) in zip(homes, targets, strict=True)]),
    )


TRAIN, HELD_OUT = questions(Split.REHEARSAL, 3000), questions(Split.HELD_OUT, 1500)
ERROR = 3 * (0.25 * 0.75 / len(HELD_OUT.right)) ** 0.5  # three standard errors of a player at chance


def words(thing: str) -> set[str]:
    return set(thing.lower().split())


def nothing(thing: str) -> set[str]:
    return set()


def accuracies(features_of: Callable[[str], set[str]]) -> tuple[float, float]:
    """Fit a conditional logit, weights of (feature, place) and of the place; accuracy in training and held out."""
    vocabulary = {f: i + 1 for i, f in enumerate(sorted(set().union(*map(features_of, TRAIN.things))))}

    def matrix(data: Questions) -> NDArray[np.float64]:
        x = np.zeros((len(data.things), len(vocabulary) + 1))
        x[:, 0] = 1
        for row, thing in enumerate(data.things):
            known = [vocabulary[feature] for feature in features_of(thing) if feature in vocabulary]
            x[row, known] = 1 / max(len(known), 1)
        return x

    def scores(x: NDArray[np.float64], data: Questions) -> NDArray[np.float64]:
        return np.take_along_axis(x @ weights, data.places, axis=1)

    x, weights = matrix(TRAIN), np.zeros((len(vocabulary) + 1, len(NAMES)))
    rows = np.arange(len(TRAIN.right))
    for _ in range(STEPS):
        logits = scores(x, TRAIN)
        error = -np.exp(logits - logits.max(axis=1, keepdims=True))
        error /= -error.sum(axis=1, keepdims=True)
        error[rows, TRAIN.right] += 1
        residual = np.zeros((len(rows), len(NAMES)))
        np.put_along_axis(residual, TRAIN.places, error, axis=1)
        weights += STEP_SIZE * (x.T @ residual / len(rows) * len(NAMES) - DECAY * weights)
    fits = [float((scores(matrix(d), d).argmax(axis=1) == d.right).mean()) for d in (TRAIN, HELD_OUT)]
    return fits[0], fits[1]


@pytest.mark.parametrize("data", [TRAIN, HELD_OUT], ids=["train", "held-out"])
def test_every_place_is_right_as_often_as_chance_says(data: Questions) -> None:
    offered = np.bincount(data.places.ravel(), minlength=len(NAMES))
    right = np.bincount(data.places[np.arange(len(data.right)), data.right], minlength=len(NAMES))
    squares = (right - offered / PLACES) ** 2 / (offered * 0.25 * 0.75)  # each about 1
    assert squares.sum() < len(NAMES) + 3 * (2 * len(NAMES)) ** 0.5
    assert abs((data.right == 0).mean() - 1 / PLACES) < ERROR


def test_a_table_of_places_is_at_chance() -> None:
    train, held_out = accuracies(nothing)
    assert train < 0.25 + 2 * ERROR  # it is fitted to these
    assert abs(held_out - 0.25) < ERROR


def test_words_learned_in_training_say_nothing_about_held_out_things() -> None:
    train, held_out = accuracies(words)
    assert train > 0.9
    assert abs(held_out - 0.25) < ERROR
