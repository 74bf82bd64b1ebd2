"""Questions of the package reasoning-gym, which makes them from a seed and judges the answers.

One turn: the episode is won if the answer is right, and lost otherwise. The choices are answers to questions of the
same kind, so that whoever does not read the question is right by chance only.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

import numpy as np

from ..protocol.errors import GameError
from ..protocol.play import Setting
from .game import Frame
from .random_state import preserved_random_state

GOAL = "Answer the question."
CHOICES = 8  # where a question does not say itself what may be answered
MISSING = "the family 'reasoning' needs reasoning-gym, which is not installed: pip install 'fedoel[reasoning]'"
ENTRIES = 64  # of a dataset, for one question: those behind it give other answers, or take its place
RELATIVES = (
    "aunt", "brother", "daughter", "father", "grandfather", "grandmother", "husband", "mother", "sister", "son",
    "uncle", "wife",
)  # fmt: skip
"""What may be answered. In-laws, nieces and nephews are left out: reasoning-gym 0.1.25 takes the wrong one of the two
for them (its issue 535)."""

Entry = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Task:
    """A kind of question.

    Parameters
    ----------
    dataset
        Its name in reasoning-gym.
    sizes
        The dataset's settings that ``size`` sets.
    choices
        Different answers to choose from, or examples of them where any text may be answered, in any order, by the
        entries of a question and of those that follow. If the right answer is not among them, the next question takes
        its place.
    pattern
        Of an answer that can be understood although it is none of the choices.
    settings
        The dataset's other settings.
    least
        Smallest size.
    """

    dataset: str
    sizes: tuple[str, ...]
    choices: Callable[[Iterable[Entry]], Sequence[str]]
    pattern: str = r"(?!)"
    settings: tuple[tuple[str, int], ...] = ()
    least: int = 2


def _people(entries: Iterable[Entry]) -> list[str]:
    """Return the first words of the sentences before the question."""
    told = str(next(iter(entries))["question"]).splitlines()[0]
    return list(dict.fromkeys(sentence.split()[0] for sentence in told.split(". ") if sentence.strip()))


def _answers(entries: Iterable[Entry]) -> list[str]:
    """Return the right answers of this question and of others."""
    return list(dict.fromkeys(str(entry["answer"]) for entry in entries))[:CHOICES]


TWO_DIGITS = (("min_digits", 2), ("max_digits", 2))
TASKS: Mapping[str, Task] = MappingProxyType(
    {
        "needle": Task("needle_haystack", ("min_num_statements", "max_num_statements"), _people),
        "relatives": Task(
            "family_relationships", ("min_family_size", "max_family_size"), lambda entries: RELATIVES, least=3
        ),
        "sums": Task("chain_sum", ("min_terms", "max_terms"), _answers, r"-?\d+", TWO_DIGITS),
    }
)
"""Who does what, who is whose relative, and sums of numbers of two digits."""


def check_reasoning(settings: Mapping[str, Setting]) -> str:
    """Return why questions cannot be asked, or an empty string."""
    least = TASKS[str(settings["task"])].least
    if int(settings["size"]) < least:
        return f"size={settings['size']} is too small for task={settings['task']}, which begins at {least}"
    return "" if find_spec("reasoning_gym") else MISSING


class ReasoningEngine:
    """One question.

    Parameters
    ----------
    settings
        The ``task``; its ``size``, which is a number of sentences, of relatives, or of terms; and ``open``, with which
        nothing is listed and any text may be answered.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._task, self._open = TASKS[str(settings["task"])], bool(settings["open"])
        self._settings = {**dict(self._task.settings), **dict.fromkeys(self._task.sizes, int(settings["size"]))}
        self._dataset: Any = None
        self._entry: Entry = {}
        self._choices: tuple[str, ...] = ()

    def start(self, seed: int) -> Frame:
        """Ask the question of this seed."""
        self._dataset = _dataset(self._task.dataset, seed, self._settings)
        number = next(number for number in range(ENTRIES) if self._dataset[number]["answer"] in self._listed(number))
        self._entry = self._dataset[number]
        self._choices = tuple(np.random.default_rng(seed).permutation(self._listed(number)).tolist())
        text = f"-= Question =-\n{str(self._entry['question']).strip()}"
        return Frame(text, GOAL, self._choices, 0.0, 1.0, won=False, lost=False, open=self._open)

    def act(self, command: str) -> Frame:
        """Judge an answer; case and a full stop at its end do not matter."""
        entry, answer = self._started(), command.strip().rstrip(".").lower()
        right = self._dataset.score_answer(answer, entry) == 1.0
        listed = answer in [choice.lower() for choice in self._choices]
        understood = re.fullmatch(self._task.pattern, answer) is not None
        text = "That is right." if right else "That is not right."
        return Frame(text, GOAL, (), float(right), 1.0, won=right, lost=not right, valid=right or listed or understood)

    def walkthrough(self) -> tuple[str, ...]:
        """Return the right answer."""
        return (str(self._started()["answer"]),)

    def close(self) -> None:
        """Forget the question."""
        self._entry = {}

    def _listed(self, number: int) -> Sequence[str]:
        """Return the choices of an entry."""
        return self._task.choices(self._dataset[later] for later in range(number, ENTRIES))

    def _started(self) -> Entry:
        if not self._entry:
            raise GameError("reset the game before the first command")
        return self._entry


def _dataset(name: str, seed: int, settings: Mapping[str, int]) -> Any:
    """Return a dataset whose entries no other seed has."""
    with preserved_random_state():  # which the import changes
        from reasoning_gym import create_dataset
    return create_dataset(name, seed=seed * ENTRIES, size=ENTRIES, **settings)  # each entry has a seed
