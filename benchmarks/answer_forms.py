"""What a linear head over hidden states tells of answers about unseen things, by the form of the answer.

    python benchmarks/answer_forms.py --seed 40

Situations of `tidy open=1` with one thing and four places. A head like that of the codec `embedding` is fitted to
labelled situations, by whose answers the matrix is whitened, too; printed is the share of situations with unseen things
in which it puts the right answer first. Nothing is played: it is what experience could teach at best. Then the lengths
of phi, of these answers and of texts beside them that are no commands.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fedoel.codecs.embedding.whitening import Whitening
from fedoel.games.tidy.asking import HANDS, AskingEngine
from fedoel.games.tidy.engine import put_command
from fedoel.games.tidy.table import load_table
from fedoel.policies.abilities import embedding
from fedoel.policies.backend import load_version
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.host.cache import default_cache
from fedoel.protocol.situation import Memory, Situation

LABELLED, UNSEEN, PLACES, DIMENSION, RIDGE, NEWTON_STEPS = 480, 300, 4, 64, 0.05, 100
FORMS: Mapping[str, Callable[[str, str], str]] = {
    "place": lambda thing, place: place,
    "in place": lambda thing, place: f"{load_table().prepositions[place]} {place}",
    "put thing in place": put_command,
}
SPOILT: Sequence[Callable[[str], str]] = (
    lambda answer: f"{answer} bathroom bathroom bathroom",
    lambda answer: f"{answer} and then",
    lambda answer: answer.rpartition(" ")[0],
)

Situations = list[tuple[Situation, int]]


def situations(split: str, count: int, seed: int, form: str) -> Situations:
    """Return situations whose answers have a form, and the index of the right one."""
    found, table = Situations(), load_table()
    for number in range(count):
        engine = AskingEngine({"things": 1, "rooms": 1, "places": PLACES, "split": split})
        frame = engine.start(seed * 10_000 + number)
        asked = HANDS.search(frame.text)
        assert asked
        places = [next(p for p in table.prepositions if put_command(asked["thing"], p) == c) for c in frame.admissible]
        answers = tuple(FORMS[form](asked["thing"], place) for place in places)
        situation = Memory(frame.goal, 1).see(frame.text, answers, 0, open_answer=True)
        found.append((situation, frame.admissible.index(engine.walkthrough()[0])))
    return found


def fitted(features_NAd: NDArray[np.float64], right_N: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the weights of a softmax over answers with the greatest penalised likelihood, by diagonal Newton steps."""
    weights_d = np.zeros(features_NAd.shape[-1])
    for _ in range(NEWTON_STEPS):
        scores_NA = features_NAd @ weights_d
        probs_NA = np.exp(scores_NA - scores_NA.max(1, keepdims=True))
        probs_NA /= probs_NA.sum(1, keepdims=True)
        means_Nd = np.einsum("na,nad->nd", probs_NA, features_NAd)
        gradient_d = (features_NAd[np.arange(len(right_N)), right_N] - means_Nd).sum(0) - RIDGE * weights_d
        centred_NAd = features_NAd - means_Nd[:, None]
        fisher_d = np.einsum("na,nad->d", probs_NA, centred_NAd**2)
        weights_d += 0.5 * gradient_d / (fisher_d + RIDGE)
    return weights_d


def main(seed: int) -> None:
    """Print one line for each form of an answer, and the lengths of phi."""
    model = embedding(load_version(PolicyConfig(threads=1, lora_layers=14), {}, "", default_cache()))
    for form in FORMS:
        labelled, unseen = (
            situations(split, count, seed, form) for split, count in (("train", LABELLED), ("test", UNSEEN))
        )
        hidden = model.embed([situation for situation, _ in labelled])
        whitening = Whitening.fit(hidden, DIMENSION)
        weights = fitted(
            np.stack([whitening.features(h) for h in hidden]).astype(np.float64), np.array([r for _, r in labelled])
        )
        features = [whitening.features(h) for h in model.embed([situation for situation, _ in unseen])]
        hits = [int((phi @ weights).argmax()) == right for phi, (_, right) in zip(features, unseen, strict=True)]
        print(f"{form}: {np.mean(hits):.0%} of {UNSEEN} right", flush=True)
    some = [situation for situation, _ in unseen[:60]]
    spoilt = [replace(s, alternatives=(*s.choices, *(f(s.choices[0]) for f in SPOILT))) for s in some]
    lengths = [
        np.linalg.norm((h - h[:PLACES].mean(0)) @ whitening.matrix.astype(np.float32), axis=1)
        for h in model.embed(spoilt)
    ]
    for name, part in (("commands", np.array(lengths)[:, :PLACES]), ("spoilt", np.array(lengths)[:, PLACES:])):
        low, middle, high = np.quantile(part, (0.05, 0.5, 0.95))
        print(f"length of phi, {name}: median {middle:.1f} ({low:.1f}-{high:.1f})")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=40, help="draws homes and things")
    main(parser.parse_args().seed)
