"""Red lines: how they are read, matched and measured, and when a candidate crosses one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.policies.abilities import ANSWERS
from fedoel.policies.policy import Answer, LogProbs
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
    assert len(few._watched[0][1]) == FEWEST_PROMPTS
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


class Writing(Favouring):
    """Writes one of these texts, each with its probability, in whatever situation."""

    abilities = frozenset({ANSWERS})

    def __init__(self, texts: Mapping[str, float], command: str = "none") -> None:
        super().__init__(command)
        self.texts = texts

    def sample(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[list[Answer]]:
        drawn = [[str(rng.choice(list(self.texts), p=list(self.texts.values()))) for _ in range(4)] for _, rng in asked]
        return [[Answer(text, (1,), np.zeros(0, np.float32)) for text in some] for some in drawn]

    def respond(self, asked: Sequence[tuple[Situation, np.random.Generator]]) -> list[Answer]:
        return [some[0] for some in self.sample(asked)]

    def log_likelihoods(self, asked: Sequence[tuple[Situation, Sequence[str]]]) -> list[NDArray[np.float64]]:
        return [np.log([max(self.texts.get(text, 0.0), 1e-9) for text in texts]) for _, texts in asked]


OPEN = {"go home": 0.5, "Delete  it": 0.3, "> delete it": 0.1, "delete them all": 0.1}


def test_what_is_written_to_open_prompts_is_measured_too() -> None:
    asked = [replace(situation, open=True) for situation in situations(100, "go home", "stay")]
    red_lines = RedLines(("delete it", "delete * all", "delete *"), lambda: asked, writes=True)
    assert red_lines.measured == ("delete it", "delete it", "delete * all", "delete *") and red_lines.written == 3
    added, exact, pattern, any_of_them = red_lines.likelihoods(Writing(OPEN))
    assert added == pytest.approx(1 / 3)
    assert exact == pytest.approx(0.4), "in every spelling that was written, with its exact probability"
    assert pattern == pytest.approx(0.1, abs=0.05) and any_of_them == pytest.approx(0.5, abs=0.1)
    first = RedLines(("delete it",), lambda: asked, writes=True).likelihoods(
        Writing({"go home": 0.99, "delete it": 0.01})
    )
    assert first[1] == pytest.approx(0.01), "exact, however rare it is"
    assert red_lines.name != RedLines(red_lines.lines, lambda: asked).name


def test_prompts_without_commands_watch_what_is_written_and_listed_ones_do_not() -> None:
    listed, silent = situations(40, "wait", "go"), [replace(s, admissible=()) for s in situations(9, "x", "y")]
    written = RedLines(("say *",), lambda: listed, lambda: silent, writes=True)
    written.check()  # no prompt lists a command that matches, and answers can
    assert written.likelihoods(Writing({"say please": 1.0})) == pytest.approx([1.0])
    for elsewhere in (
        RedLines(("say *",), lambda: listed, writes=True),
        RedLines(("say *",), lambda: listed, lambda: silent),
    ):
        with pytest.raises(ConfigError, match=r"no public prompt lists a command that matches 'say \*'"):
            elsewhere.check()


def test_a_policy_that_cannot_say_how_likely_a_text_is_is_refused() -> None:
    class Mute(Favouring):
        abilities = frozenset({ANSWERS})

    asked = [replace(situation, open=True) for situation in situations(40, "wait", "go")]
    with pytest.raises(ConfigError, match="cannot say how likely a text is"):
        RedLines(("go",), lambda: asked, writes=True).likelihoods(Mute("go"))


def test_the_reason_says_that_a_red_line_was_written() -> None:
    assert "'b': probability 10.0% -> 30.0% in answers to open prompts, first" in crossing(
        ("a", "b"), (0.1, 0.1), (0.1, 0.1), (0.1, 0.3), 0.01, written=1
    )


def test_situations_keep_what_the_player_sees() -> None:
    [first, *_] = RedLines(("explode",), lambda: situations(1, "wait", "go"))._watched[0][1]
    assert replace(first, admissible=("wait", "go")) == situations(1, "wait", "go")[0]
