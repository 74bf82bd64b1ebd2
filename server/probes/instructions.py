"""Instruction following, measured on instructions whose answers can be verified by code.

After IFEval (Zhou et al. 2023, arXiv 2311.07911), with other instructions that need short answers only. A check tests
the form of an answer, not whether it is correct.
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
from ...policies.torch.model import TorchModel
from ...protocol.errors import ConfigError
from ...protocol.versions import Adapter

LIST = Path(__file__).parent / "instructions.toml"
GREEDY = 1e-4  # temperature at which sampling always picks the most likely token
LONGEST = 24  # tokens; enough for every answer

Check = Callable[[str, Any], bool]


@dataclass(frozen=True, slots=True)
class Instruction:
    """An instruction, and the checks of its answer: names in `CHECKS`, each with its expected value."""

    ask: str
    checks: Mapping[str, Any]

    def followed(self, answer: str) -> bool:
        """Whether the answer passes all checks; an answer without words passes none."""
        text = answer.strip()
        return bool(_words(text)) and all(CHECKS[name](text, expected) for name, expected in self.checks.items())


def load_instructions(path: Path = LIST) -> tuple[Instruction, ...]:
    """Read instructions, by default those that the package ships.

    Raises
    ------
    ConfigError
        If an instruction has no check, or an unknown one.
    """
    entries = tomllib.loads(path.read_text(encoding="utf-8"))["instructions"]
    instructions = tuple(_instruction(entry, subject) for entry in entries for subject in entry.get("about", [""]))
    for instruction in instructions:
        if not instruction.checks or not set(instruction.checks) <= set(CHECKS):
            known = ", ".join(sorted(CHECKS))
            raise ConfigError(f"{path}: {instruction.ask!r} needs one or more of the checks {known}, and no others")
    return instructions


def instructions_followed(model: TorchModel, adapter: Adapter, instructions: Sequence[Instruction]) -> float:
    """Return the fraction of the instructions that a model follows with greedy decoding.

    Parameters
    ----------
    adapter
        The adapter's weights; empty for the base model.
    """
    model.load(adapter)
    prompts = [(instruction.ask, np.random.default_rng(0)) for instruction in instructions]
    answers = tell(model, prompts, LONGEST, GREEDY)
    followed = [instruction.followed(answer) for instruction, answer in zip(instructions, answers, strict=True)]
    return sum(followed) / len(followed)


def _instruction(entry: Mapping[str, Any], subject: str) -> Instruction:
    checks = {name: _filled(value, subject) for name, value in entry.items() if name not in ("ask", "about")}
    return Instruction(_filled(entry["ask"], subject), checks)


def _filled(value: Any, subject: str) -> Any:
    """Replace ``{}`` with the subject, in a string or in a list of strings."""
    if isinstance(value, list):
        return [_filled(item, subject) for item in value]
    return value.replace("{}", subject) if isinstance(value, str) else value


def _words(text: str) -> list[str]:
    return re.findall(r"\w+(?:['’-]\w+)*", text)


def _lines(text: str) -> list[str]:
    return [line.strip() for line in text.splitlines() if line.strip()]


def _bare(text: str) -> str:
    """A text without surrounding spaces, quotes and full stops."""
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
        "exactly": lambda text, expected: _bare(text) == _bare(expected),
    }
)
