"""A run's folder as `fedoel dash` meets it: with its configuration, so that it has versions, too."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from math import log
from pathlib import Path

import pytest

from fedoel.protocol.records.behaviour import Answers, PlayedTurn, Question, Replay
from fedoel.protocol.records.summary import Summary
from fedoel.server.cycle.behaviour import ANSWERS, BEHAVIOUR, REPLAY, REPLAYED
from fedoel.server.cycle.phases import Phases
from fedoel.server.events import EventLog
from fedoel.server.run_folder import STORED
from fedoel.simulations.page.watched import Watched

Save = Callable[[Path, Summary], Path]


@pytest.fixture
def folder(run: Path, summary: Summary) -> Path:
    (run / STORED).write_text(json.dumps(dict(summary.config)))
    return run


@pytest.fixture
def watched(folder: Path) -> Watched:
    return Watched(folder)


@pytest.fixture
def begun(tmp_path: Path, save: Save, summary: Summary) -> Path:
    """The same run when only its first two cycles had ended; `finish` in tests makes it the whole one."""
    return save(tmp_path / "begun", replace(summary, cycles=summary.cycles[:2]))


LONG = "put the old wooden lamp that nobody has ever lit on the table that is in the kitchen"
COMMANDS = ("take coin", LONG, "go east", "look", "inventory", "examine coin", "a" * 80, "open box")


def question(number: int, text: str = "You are in a study. There is a coin on the floor.") -> Question:
    goal = "Pick up the coin from the floor of the study, and bring it back to where you have begun."
    return Question(goal=goal, place=f"Study {number}", text=text, turn=number, commands=COMMANDS)


def log_probs(best: float, at: int = 0) -> tuple[float, ...]:
    """One command with this probability, and the others with equal shares of the rest."""
    rest = (1 - best) / (len(COMMANDS) - 1)
    return tuple(log(best if index == at else rest) for index in range(len(COMMANDS)))


def keep(run: Path, cycle: int, answers: Answers | None = None, replay: Replay | None = None) -> None:
    """Write what a cycle keeps, as the run does."""
    with EventLog(run / "unused.jsonl") as events:
        phases = Phases(run, events)
        for name, outcome in (
            (BEHAVIOUR, answers and ANSWERS.write(answers)), (REPLAYED, replay and REPLAY.write(replay))
        ):  # fmt: skip
            if outcome:
                phases.keep(cycle, name, outcome)
    (run / "unused.jsonl").unlink()


def keep_all(run: Path, prompts: int = 6, turns: int = 8) -> Path:
    """Keep what the run of these tests would have: answers in cycles 0, 1 and 3, and a game in 1 and 3."""
    asked = tuple(map(question, range(prompts)))
    for cycle, parent, best in ((0, "", 0.2), (1, "v-0000a1", 0.4), (3, "v-0001a1", 0.9)):
        version = f"v-{cycle:04x}a1"
        # The later a prompt stands, the more its answers have changed; the first ones are not about the coin.
        certain = [log_probs(0.2 + (best - 0.2) * number / (prompts - 1)) for number in range(prompts)]
        keep(run, cycle, Answers(version=version, parent=parent, questions=asked, log_probs=tuple(certain)))
    played = tuple(
        PlayedTurn(
            question=question(number), answer="go east" if number < turns - 1 else "take coin",
            log_probs=(log_probs(0.2), log_probs(0.4, at=2), log_probs(0.7, at=2)),
        )
        for number in range(turns)
    )  # fmt: skip
    versions = ("v-0000a1", "v-0001a1", "v-0003a1")
    game = Replay(versions=versions, game="coin turns=9", seed=5, won=True, lost=False, score=1.0, turns=played)
    keep(run, 3, replay=game)
    return run


@pytest.fixture
def kept(folder: Path) -> Path:
    """The run's folder with what it has kept of its versions' behaviour."""
    return keep_all(folder)
