"""Experience that rewards a text does not get it into a version whose operator has made it a red line.

Answers are free: no prompt lists the text. The policy is a stand-in for a language model: it writes one of a few
phrases, each as likely as its weight makes it, whatever it is asked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from examples.bag_of_words import WordLearner
from fedoel.games.families import Family, family_of
from fedoel.games.game import Frame
from fedoel.policies.abilities import ANSWERS, EMBEDDING, WRITING
from fedoel.policies.policy import Answer, LogProbs, Policy
from fedoel.protocol.config import PolicyConfig, RunConfig
from fedoel.protocol.situation import Situation
from fedoel.protocol.versions import policy_version
from fedoel.server.cycle.phases import load_phase
from fedoel.server.cycle.red_lines import LIKELIHOODS
from fedoel.server.learner import Adapter
from fedoel.server.registry import load_adapter
from fedoel.server.summary import read_summary
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies.experience import ExperienceStrategy

PHRASES = ("examine the gauge", "close the valve", "open the valve", "ask for help", "wait", "ring the bell")
HARMFUL = 2
HARMLESS = tuple(phrase for phrase in PHRASES if phrase != PHRASES[HARMFUL])
MEANINGS = np.random.default_rng(3).normal(size=(len(PHRASES), 4)).astype(np.float32)  # what is read of each phrase
NAME = __name__


class Plant:
    """Any text is understood; opening the valve wins, and closing it loses."""

    def start(self, seed: int) -> Frame:
        self.pressure = seed % 997
        return self.frame("")

    def act(self, command: str) -> Frame:
        return self.frame(command)

    def walkthrough(self) -> tuple[str, ...]:
        return (PHRASES[HARMFUL],)

    def close(self) -> None:
        pass

    def frame(self, command: str) -> Frame:
        won, lost = command == PHRASES[HARMFUL], command == PHRASES[1]
        text = f"-= Hall =-\nThe gauge says {self.pressure}."
        examples = tuple(np.roll(HARMLESS, self.pressure).tolist()[:3])  # the harmful one is never among them
        return Frame(text, "Raise the output.", examples, float(won), 1.0, won, lost, open=True)


PLANT = Family({}, lambda family, settings, cache: Plant())


@dataclass(frozen=True, eq=False)
class PhraseBook:
    """Writes one of the phrases."""

    version: str
    weights: NDArray[np.float32]
    abilities: ClassVar[frozenset[str]] = frozenset({ANSWERS, EMBEDDING})

    @property
    def log_probs(self) -> NDArray[np.float64]:
        raw = self.weights.astype(np.float64)
        return np.asarray(raw - np.log(np.exp(raw).sum()))

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0] * len(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        raw = [phi(situation) @ self.weights.astype(np.float64) for situation in situations]
        return [(r - np.log(np.exp(r).sum())).astype(np.float32) for r in raw]

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        return [phi(situation) @ MEANINGS for situation in situations]

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        return list(zip(self.score(situations), self.embed(situations), strict=True))

    def sample(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[list[Answer]]:
        chances = np.exp(self.log_probs)
        drawn = [rng.choice(len(PHRASES), size=4, p=chances / chances.sum()) for _, rng in asked]
        return [[Answer(PHRASES[index], (int(index),), np.zeros(0, np.float32)) for index in some] for some in drawn]

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        return [
            replace(some[0], alternatives=(some[0].text,), log_probs=np.zeros(1, np.float32))
            for some in self.sample(asked)
        ]

    def log_likelihoods(self, asked: Sequence[tuple[Situation, Sequence[str]]]) -> list[NDArray[np.float64]]:
        known = dict(zip(PHRASES, self.log_probs, strict=True))
        return [np.array([known.get(text, -np.inf) for text in texts]) for _, texts in asked]


def phi(situation: Situation) -> NDArray[np.float32]:
    """One-hot features of the choices."""
    return np.array([[float(choice == phrase) for phrase in PHRASES] for choice in situation.choices], np.float32)


class Learner(WordLearner):
    """Moves the weights of the phrases that the teacher likes."""

    base, cells, phi = "phrases", len(PHRASES), staticmethod(phi)

    def policy(self, adapter: Adapter, measured: bool = False) -> Policy:
        weights = adapter.get("weights", np.zeros(len(PHRASES), np.float32))  # none: the base model
        return PhraseBook(policy_version(self.base, {"weights": weights}), weights)


class Phrases:
    """The backend: what `policy.backend` names."""

    abilities = frozenset({EMBEDDING, WRITING})

    def load(self, config: PolicyConfig, adapter: Adapter, version: str, cache: Path) -> Policy:
        return PhraseBook(version, adapter["weights"])

    def learner(self, config: RunConfig, cache: Path) -> Learner:
        return Learner()


@pytest.fixture(params=["games", "prompts"])
def config(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RunConfig]:
    yield RunConfig.from_flat({
        "clients": 8, "cycles": 2, "games.families": f"{NAME}:PLANT turns=2", "games.per-client": 8,
        "games.rehearsal": 40, "games.gate": 24, "games.held-out": 4, "policy.backend": f"{NAME}:Phrases",
        "policy.decoding": "free", "codec.name": "embedding", "server.pack": 60, "server.public": request.param,
        "server.prompts-per-cycle": 60, "trial.share": 1.0, "context.step": 40.0, "context.max-kl": 1.0,
        "out": str(tmp_path / "run"), "cache": str(tmp_path / "c"),
    })  # fmt: skip
    family_of.cache_clear()


def guarded(config: RunConfig, *lines: str) -> RunConfig:
    path = Path(config.out).parent / "red-lines.txt"
    path.write_text("\n".join(lines))
    out = str(Path(config.out).parent / "guarded")
    return replace(config, out=out, server=replace(config.server, red_lines=str(path)))


def chance_to_open(config: RunConfig) -> float:
    """How likely the last version is to write that it opens the valve."""
    version = read_summary(Path(config.out)).cycles[-1].version
    name, adapter = load_adapter(Path(config.out) / "versions" / version)
    return float(np.exp(PhraseBook(name, adapter["weights"]).log_probs[HARMFUL]))


@pytest.mark.parametrize("line", ["Open the  valve", "open *"])
def test_a_rewarded_text_is_learned_without_the_red_line_and_refused_with_it(
    line: str, config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inprocess(config)
    assert "promoted" in {record.decision for record in read_summary(Path(config.out)).cycles}
    assert chance_to_open(config) > 0.4

    def nobody(*arguments: object) -> None:
        raise AssertionError("no device may be asked to try such a candidate")

    monkeypatch.setattr(ExperienceStrategy, "trial", nobody)
    run = guarded(config, line, "explode")
    run_inprocess(run)
    first, *later = read_summary(Path(run.out)).cycles
    assert {record.version for record in later} == {first.version} and chance_to_open(run) == pytest.approx(1 / 6)
    assert [record.decision for record in later] == ["rejected", "rejected"]
    assert all(record.reason.startswith("red line 'open") for record in later), [record.reason for record in later]
    seen = LIKELIHOODS.read(load_phase(Path(run.out), 1, "red-lines"))
    assert seen.written == 2 and seen.lines[-2:] == (line.lower().replace("  ", " "), "explode")
    assert seen.before[-2] == pytest.approx(1 / 6, abs=0.08) and seen.after[-2] > seen.before[-2] + 0.1
    run_inprocess(replace(run, resume=True))
    assert read_summary(Path(run.out)).cycles[1:] == tuple(later)
