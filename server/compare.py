"""Two versions side by side: what was learned between them, what they answer on public prompts, and their sizes."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..policies.backend import load_version
from ..protocol.config import RunConfig
from ..protocol.host.cache import cache_folder
from ..protocol.records.behaviour import Answers, Question
from ..protocol.situation import Situation
from .learner import Adapter
from .version_list import VersionList

PROMPTS = 64  # on which behaviour is compared


@dataclass(frozen=True, slots=True)
class Shift:
    """How the most likely command of one public prompt differs; probabilities are of both commands in both versions.

    `before` and `after` are the most likely commands, each with its probability in the first and second version.
    """

    question: Question
    before: tuple[str, float, float]
    after: tuple[str, float, float]
    kl: float


@dataclass(frozen=True, slots=True)
class Behaviour:
    """Two versions on public prompts.

    Parameters
    ----------
    prompts, changed
        How many prompts, and on how many of them the most likely command differs.
    kl
        Mean KL divergence of the second from the first, in nats.
    shifts
        The prompts, most different ones first.
    """

    prompts: int
    changed: int
    kl: float
    shifts: tuple[Shift, ...]


def behaviour(config: RunConfig, weights: Mapping[str, Adapter], situations: Sequence[Situation]) -> Behaviour:
    """Let two versions answer public prompts.

    Parameters
    ----------
    weights
        Those of the first and of the second version, by their names; the same name twice is one version.

    Raises
    ------
    ModelError
        If the base model is not there, or makes another version with these weights.
    """
    from .cycle.behaviour import answers

    def answers_of(name: str) -> Answers:
        return answers(load_version(config.policy, weights[name], name, cache_folder(config)), name, "", situations)

    # One after the other: a backend may hold a single adapter.
    names = list(weights)
    before, after = (answers_of(name) for name in (names[0], names[-1]))
    return compared(before, after)


def compared(before: Answers, after: Answers) -> Behaviour:
    """Compare what two versions have answered, on the prompts that both have been asked."""
    known = dict(zip(before.questions, before.log_probs, strict=True))
    pairs = zip(after.questions, after.log_probs, strict=True)
    shifts = [_shift(question, known[question], log_probs) for question, log_probs in pairs if question in known]
    shifts.sort(key=lambda shift: -shift.kl)
    changed = sum(shift.before[0] != shift.after[0] for shift in shifts)
    kl = float(np.mean([shift.kl for shift in shifts])) if shifts else 0.0
    return Behaviour(len(shifts), changed, kl, tuple(shifts))


def _shift(question: Question, before: Sequence[float], after: Sequence[float]) -> Shift:
    p, q = np.exp(before), np.exp(after)
    top, other = int(p.argmax()), int(q.argmax())
    kl = float(np.sum(q * (np.array(after) - before)))
    commands = question.commands
    return Shift(
        question,
        (commands[top], float(p[top]), float(q[top])),
        (commands[other], float(p[other]), float(q[other])),
        kl,
    )


def learned(versions: VersionList, name: str) -> Mapping[str, float]:
    """Return the lessons of a version and of all before it: the sum of weights by tactic."""
    weights: dict[str, float] = defaultdict(float)
    for ancestor in versions.lineage(name):
        manifest = versions.manifest(ancestor)
        for lesson in manifest.lessons if manifest else ():
            weights[lesson.tactic] += lesson.weight
    return weights


def size_of(folder: Path) -> int:
    """Return the bytes of a version's files."""
    return sum(path.stat().st_size for path in folder.glob("*") if path.is_file())
