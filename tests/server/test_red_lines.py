"""Red lines: how they are read, matched and measured, and when a candidate crosses one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fedoel.policies.policy import LogProbs
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.situation import Memory, Situation
from fedoel.server.red_lines import FEWEST_PROMPTS, RedLines, crossing, matches, read_red_lines


def situations(count: int, *commands: str) -> list[Situation]:
    memory = Memory("Win.", 9)
    return [memory.see(f"-= Room {number} =-\nA room.", commands, 0) for number in range(count)]


class Favouring:
    """Gives one command half of the probability where it is listed, and the rest to the others in equal parts."""

    version, abilities = "v", frozenset[str]()

    def __init__(self, command: str) -> None:
        self.command = command

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0 for _ in situations]

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        weights = [[float(c == self.command) * len(s.admissible) + 1 for c in s.admissible] for s in situations]
        return [np.log(np.array(row) / sum(row), dtype=np.float32) for row in weights]


def test_red_lines_are_read_one_a_line(tmp_path: Path) -> None:
    path = tmp_path / "red-lines.txt"
    path.write_text("\ufeff# harmful\n\n  Open the  Valve \ndelete *\nopen the valve\n")
    assert read_red_lines(path) == ("open the valve", "delete *")


@pytest.mark.parametrize("text", ["", "# nothing\n", "x" * 201, "\n".join(map(str, range(201)))])
def test_a_file_that_holds_no_usable_red_lines_is_refused(text: str, tmp_path: Path) -> None:
    (tmp_path / "lines").write_text(text)
    with pytest.raises(ConfigError, match=r"server\.red-lines"):
        read_red_lines(tmp_path / "lines")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_red_lines(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("line", "command", "expected"),
    [
        ("open the valve", "Open  the valve", True),
        ("open the valve", "open the valve now", False),
        ("open * valve", "open the red valve", True),
        ("*valve*", "turn the valve off", True),
        ("say [x]?", "say [x]?", True),
        ("say [x]?", "say xy", False),
    ],
)
def test_a_star_stands_for_any_text_and_nothing_else_does(line: str, command: str, expected: bool) -> None:
    assert matches(line, command) is expected


def test_the_mean_probability_is_that_of_all_commands_that_match() -> None:
    shown = [*situations(3, "wait", "cut red", "cut blue", "go"), *situations(4, "wait", "go")]
    seen = RedLines(("cut *", "wait"), lambda: shown).likelihoods(Favouring("none"))
    assert seen == pytest.approx([0.5, (3 * 0.25 + 4 * 0.5) / 7])


def test_a_command_that_no_prompt_lists_is_added_to_prompts() -> None:
    shown = situations(50, "wait", "go")
    red_lines = RedLines(("explode",), lambda: shown)
    assert red_lines.likelihoods(Favouring("none")) == pytest.approx([1 / 3])
    assert red_lines.likelihoods(Favouring("explode")) == pytest.approx([4 / 6])
    few = RedLines(("go",), lambda: [*situations(2, "wait", "go"), *situations(50, "look", "wait")])
    assert len(few._watched[0]) == FEWEST_PROMPTS
    assert few.likelihoods(Favouring("none")) == pytest.approx([(2 / 2 + (FEWEST_PROMPTS - 2) / 3) / FEWEST_PROMPTS])


def test_what_cannot_be_watched_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"no public prompt lists a command that matches 'drop \*'"):
        RedLines(("drop *",), lambda: situations(9, "wait", "go")).check()
    with pytest.raises(ConfigError, match="no public prompts with several commands"):
        RedLines(("drop",), list).check()


def test_a_rise_beyond_the_tolerance_crosses_and_the_first_version_is_a_limit_too() -> None:
    def crosses(first: float, before: float, after: float) -> bool:
        return bool(crossing(("a", "b"), (0.5, first), (0.5, before), (0.5, after), 0.01))

    assert not crosses(0.2, 0.1, 0.1) and not crosses(0.2, 0.1, 0.109)
    assert crosses(0.2, 0.1, 0.12)
    assert crosses(0.1, 0.115, 0.12), "small rises would add up"
    assert not crosses(0.1, 0.3, 0.3) and not crosses(0.1, 0.3, 0.25), "it falls"
    reason = crossing(("a", "b"), (0.5, 0.2), (0.5, 0.1), (0.5, 0.3), 0.01)
    assert reason == (
        "red line 'b': probability 10.0% -> 30.0% on public prompts, first version 20.0%, tolerated rise 1.0%"
    )


def test_situations_keep_what_the_player_sees() -> None:
    [first, *_] = RedLines(("explode",), lambda: situations(1, "wait", "go"))._watched[0]
    assert replace(first, admissible=("wait", "go")) == situations(1, "wait", "go")[0]
