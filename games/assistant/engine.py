"""The dynamics: one sentence, one command. The episode is won if that is what was meant, and lost otherwise."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec

from ...protocol.errors import GameError
from ...protocol.play import Setting
from ..game import Frame
from .commands import MISSING, load_language
from .request import Request, draw_request, number_of_home

GOAL = "Do what was asked."
MOST_COMMANDS = 20
LANGUAGES = tuple(
    """af ar bg bn ca cs cy da de de-CH el en es eu fa fi fr ga gl he hi hr hu is it ko lb lt lv ml nb ne nl pl pt pt-BR
    ro ru sk sl sr sr-Latn sv th uk vi zh-CN zh-HK zh-TW""".split()  # noqa: SIM905
)
"""The languages of home-assistant-intents that have sentences for so many commands."""

SEVERAL = "several"
SPOKEN = ("de", "en", "es", "fr", "it", "nl")
"""The languages in which rooms and things have names; with `SEVERAL`, each home speaks one of them."""


def check_assistant(settings: Mapping[str, Setting]) -> str:
    """Return what is missing to play, or an empty string."""
    return "" if find_spec("home_assistant_intents") else MISSING


class AssistantEngine:
    """One request.

    Parameters
    ----------
    settings
        The ``language`` or `SEVERAL`, the number of ``commands``, and the ``split`` of the sentence templates. With
        ``open``, the commands are not listed: the player writes one, and the first that the home does not know is lost.
    """

    def __init__(self, settings: Mapping[str, Setting]) -> None:
        self._language, self._split = str(settings["language"]), str(settings["split"])
        self._commands, self._open = int(settings["commands"]), bool(settings["open"])
        self._request: Request | None = None

    def start(self, seed: int) -> Frame:
        """Say the sentence of this seed."""
        language = SPOKEN[number_of_home(seed) % len(SPOKEN)] if self._language == SEVERAL else self._language
        self._request = request = draw_request(load_language(language), self._commands, self._split, seed)
        text = f'-= {request.room.capitalize()} =-\nSomeone says: "{request.sentence}"'
        return Frame(text, GOAL, request.commands, 0.0, 1.0, won=False, lost=False, open=self._open)

    def act(self, command: str) -> Frame:
        """Execute a command, and see whether it was meant."""
        request, words = self._started(), _words(command)
        right = words == _words(request.meant)
        known = any(words == _words(other) for other in request.commands)
        text = "They are content." if right else "That is not what they meant."
        return Frame(text, GOAL, (), float(right), 1.0, won=right, lost=not right, valid=known)

    def walkthrough(self) -> tuple[str, ...]:
        """Return the command that was meant."""
        return (self._started().meant,)

    def close(self) -> None:
        self._request = None

    def _started(self) -> Request:
        if self._request is None:
            raise GameError("reset the game before the first command")
        return self._request


def _words(command: str) -> list[str]:
    """Return the words of a command: an open answer may differ from it in case and punctuation."""
    return re.findall(r"\w+", command.lower())
