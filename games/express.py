"""TextWorldExpress (arXiv 2208.01174): eight kinds of text games in one Java virtual machine a process.

It runs wherever Java does, also where TextWorld has no wheel. Its games come in three folds of 1,000 seeds each, with
objects and layouts of their own: *train* for private and public games, *dev* for the gate, *test* for held-out games.
Private and public games take different seeds of *train*. A fleet that plays more than `PRIVATE_GAMES` different games
meets some of them twice.
"""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from functools import lru_cache
from importlib.util import find_spec
from os import getpid
from threading import Lock
from types import MappingProxyType
from typing import Any

from ..protocol.errors import GameError
from ..protocol.play import Setting
from .game import Frame

KINDS: Mapping[str, str] = MappingProxyType(
    {
        "coin": "numLocations={rooms},includeDoors=0,numDistractorItems=0",
        "twc": "numLocations=1,numItemsToPutAway={items},includeDoors=0,limitInventorySize=0",
        "cooking": "numLocations=1,numIngredients={items},numDistractorItems=2,includeDoors=0,limitInventorySize=0",
        "mapreader": "numLocations={rooms},maxDistanceApart=2,includeDoors=0",
        "arithmetic": "",
        "sorting": "",
        "peckingorder": "",
        "simonsays": "gameLength={items},numDistractors=3",
    }
)
"""Kinds of games, and the engine's parameters of each."""
NAMES = {"cooking": "cookingworld"}  # where the engine's name differs
FOLDS = {"all": "train", "train": "train", "valid": "dev", "test": "test"}
PRIVATE_GAMES = 797  # prime, so that clients, whose seeds are 10,000 apart, begin at different games
FIRST_PUBLIC = 1_000_000_000  # first seed of `fedoel.games.splits.Split.REHEARSAL`
HEAP = "-Xmx512m"
MISSING = "the family 'express' needs {}: pip install 'fedoel[express]', and a Java runtime on PATH"
_ROOM = re.compile(r"\AYou are in (?:the|a|an) ([a-z ]+?)\.")
_lock = Lock()


def missing() -> str:
    """Return what this machine lacks to play these games, as a sentence; empty if it lacks nothing. Starts nothing."""
    parts = [name for name, there in (
        ("textworld-express", find_spec("textworld_express")), ("Java", shutil.which("java"))
    ) if not there]  # fmt: skip
    return MISSING.format(" and ".join(parts)) if parts else ""


class ExpressEngine:
    """One game. All games of a process share its virtual machine, which starts with the first."""

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        kind = str(settings["kind"])
        self._name, self._parameters = NAMES.get(kind, kind), KINDS[kind].format(**settings)
        self._fold = FOLDS[str(settings["split"])]
        self._java: Any = None

    def start(self, seed: int) -> Frame:
        """Start the instance of this seed.

        Raises
        ------
        GameError
            If there is no Java, or the engine refuses the game.
        """
        if self._java is None:
            self._java = _interface(getpid())
            if refusal := self._java.load(self._name, self._parameters):
                raise GameError(f"TextWorldExpress cannot play {self._name}: {refusal}")
        return self._frame(self._java.generateNewGameJSON(self._engine_seed(seed), self._fold, True))

    def act(self, command: str) -> Frame:
        """Execute an admissible command."""
        return self._frame(self._started().stepJSON(command))

    def walkthrough(self) -> tuple[str, ...]:
        """Return the engine's gold path. It wins every game but a few of coin and sorting."""
        return tuple(self._started().getGoldActionSequence())

    def close(self) -> None:
        """Release the game; the virtual machine goes on for others."""
        self._java = None

    def _started(self) -> Any:
        if self._java is None:
            raise GameError("reset the game before the first command")
        return self._java

    def _engine_seed(self, seed: int) -> int:
        seeds = _seeds(getpid(), self._name, self._parameters, self._fold)
        if self._fold == "train":
            seeds = seeds[PRIVATE_GAMES:] if seed >= FIRST_PUBLIC else seeds[:PRIVATE_GAMES]
        return seeds[seed % len(seeds)]

    def _frame(self, reply: str) -> Frame:
        state = json.loads(reply)
        goal = _line(self._started().getTaskDescription()).removeprefix("Your task is to ")
        return Frame(
            text=_described(state["observation"], state["inventory"]),
            goal=goal[:1].upper() + goal[1:],
            admissible=tuple(sorted(set(state["validActions"]))),
            score=max(0.0, float(state["score"])),
            max_score=1.0,
            won=bool(state["tasksuccess"]),
            lost=bool(state["taskfailure"]),
        )


def _described(observation: str, inventory: str) -> str:
    """Return a reply with the room's name in a line above, if it describes a room, and what is carried below."""
    text = _line(observation)
    if room := _ROOM.match(text):
        text = f"-= {room[1].title()} =-\n{text}"
    carried = [_line(line) for line in inventory.splitlines()[1:] if line.strip()]
    if carried and "empty" not in carried[0]:
        text += f"\nYou carry: {', '.join(carried)}."
    return text


def _line(text: str) -> str:
    return " ".join(text.split())


def _interface(process: int) -> Any:
    """Return a new interface to the virtual machine of this process."""
    with _lock:
        return _machine(process).jvm.textworldexpress.runtime.PythonInterface()


@lru_cache(maxsize=64)
def _seeds(process: int, name: str, parameters: str, fold: str) -> tuple[int, ...]:
    """Return the engine's seeds of a fold, read once: each of the thousand crosses to Java and back by itself."""
    java = _interface(process)
    java.load(name, parameters)
    folds = {"train": java.getSeedsTrain, "dev": java.getSeedsDev, "test": java.getSeedsTest}
    return tuple(sorted(int(seed) for seed in folds[fold]()))


@lru_cache(maxsize=1)
def _machine(process: int) -> Any:
    """Start the virtual machine. It ends with this process, whose standard input it reads, and not by its Ctrl-C."""
    if refusal := missing():
        raise GameError(refusal)
    from py4j.java_gateway import GatewayParameters, JavaGateway, launch_gateway
    from textworld_express.constants import BASEPATH, JAR_PATH

    port = launch_gateway(
        classpath=JAR_PATH, die_on_exit=True, cwd=BASEPATH, javaopts=[HEAP], create_new_process_group=True
    )
    return JavaGateway(gateway_parameters=GatewayParameters(auto_field=True, port=port))
