"""Instructions whose answers code can check: whether a version still does as it is told, like the base model.

After IFEval (Zhou et al. 2023, arXiv 2311.07911), with instructions of our own that ask for short answers. It counts
whether an answer has the form that was asked for, not whether it is right.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from ...policies.torch.free import tell
from ...policies.torch.model import Adapter, TorchModel
from ...protocol.errors import ConfigError

LIST = Path(__file__).parent / "instructions.toml"
GREEDY = 1e-4  # temperature: nothing but the most likely token has a chance
LONGEST = 24  # tokens: enough for every answer that was asked for

Check = Callable[[str, Any], bool]


@dataclass(frozen=True, slots=True)
class Instruction:
    """What is asked, and by which checks the answer is judged: names of `CHECKS` with what each wants."""

    ask: str
    checks: Mapping[str, Any]

    def followed(self, answer: str) -> bool:
        """Whether the answer has the form that was asked for; one that says nothing has none."""
        text = answer.strip()
        return bool(_words(text)) and all(CHECKS[name](text, wanted) for name, wanted in self.checks.items())


def load_instructions(path: Path = LIST) -> tuple[Instruction, ...]:
    """Read instructions, by default those that the package ships.

    Raises
    ------
    ConfigError
        If one is without a check, or names one that there is not.
    """
    read = tomllib.loads(path.read_text(encoding="utf-8"))["instructions"]
    found = tuple(_instruction(entry, thing) for entry in read for thing in entry.get("about", [""]))
    for instruction in found:
        if not instruction.checks or not set(instruction.checks) <= set(CHECKS):
            known = ", ".join(sorted(CHECKS))
            raise ConfigError(f"{path}: {instruction.ask!r} needs one or more of the checks {known}, and no others")
    return found


def instructions_followed(model: TorchModel, adapter: Adapter, instructions: Sequence[Instruction]) -> float:
    """Share of the instructions that a model follows when it answers greedily.

    Parameters
    ----------
    adapter
        An empty one stands for the base model.
    """
    model.load(adapter)
    asked = [(instruction.ask, np.random.default_rng(0)) for instruction in instructions]
    answers = tell(model, asked, LONGEST, GREEDY)
    followed = [instruction.followed(answer) for instruction, answer in zip(instructions, answers, strict=True)]
    return sum(followed) / len(followed)


def _instruction(entry: Mapping[str, Any], thing: str) -> Instruction:
    checks = {name: _about(wanted, thing) for name, wanted in entry.items() if name not in ("ask", "about")}
    return Instruction(_about(entry["ask"], thing), checks)


def _about(said: Any, thing: str) -> Any:
    """What is said, or wanted, about a thing: it stands in the place of `{}`."""
    if isinstance(said, list):
        return [_about(each, thing) for each in said]
    return said.replace("{}", thing) if isinstance(said, str) else said


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’-]\w+)*", text)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _bare(text: str) -> str:
    """A text without what may stand around a word: spaces, quotes, a full stop."""
    return text.strip(" \n\"'.")


CHECKS: Mapping[str, Check] = MappingProxyType(
    {
        "words": lambda text, count: len(_words(text)) == count,
        "most-words": lambda text, count: len(_words(text)) <= count,
        "least-words": lambda text, count: len(_words(text)) >= count,
        "choice": lambda text, words: _bare(text).lower() in words,
        "digits": lambda text, _: _bare(text).isdigit(),
        "capitals": lambda text, _: text.isupper(),
        "small": lambda text, _: text.islower(),
        "begins": lambda text, start: text.startswith(start),
        "ends": lambda text, end: text.endswith(end),
        "lines": lambda text, count: len(_lines(text)) == count,
        "bullets": lambda text, mark: all(line.startswith(mark) for line in _lines(text)),
        "commas": lambda text, count: text.count(",") == count,
        "holds": lambda text, words: set(words) <= set(_words(text)),
        "lacks": lambda text, letter: letter not in text.lower(),
        "exactly": lambda text, wanted: _bare(text) == _bare(wanted),
    }
)
