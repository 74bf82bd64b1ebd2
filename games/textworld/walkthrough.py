"""Attach a walkthrough to a TextWorld game by simulating it in the game's logic, without the interpreter.

TextWorld's own `GameMaker.set_walkthrough` compiles the game, plays the walkthrough in the interpreter to see which
action each command triggers, and discards the compiled game. That takes half of the time of generating a coin
collector or cooking game. The logical state that TextWorld tracks alongside contains the same information.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any


def set_walkthrough(maker: Any, commands: Sequence[str]) -> None:
    """Record, for each event that wins a quest, the actions and commands that led to it.

    Replaces ``GameMaker.set_walkthrough``.

    Raises
    ------
    ValueError
        If the game ends before the last command; TextWorld raises the same.
    """
    game = maker.build()
    # Reading the objective generates and fixes it, as compiling would; it must not mention this walkthrough.
    assert game.objective is not None
    progress = importlib.import_module("textworld.generator.game").GameProgression(game)
    command_names = importlib.import_module("textworld.generator.inform7").Inform7Game(game)
    actions: list[Any] = []
    triggered: list[tuple[Any, list[Any], Sequence[str]]] = []
    pending = [event for quest in progress.quest_progressions for event in quest.win_events if not event.triggered]
    for count, command in enumerate(commands, start=1):
        if progress.done:
            raise ValueError("Game has ended before finishing playing all commands.")
        action = _action_of(command, progress.valid_actions, command_names)
        if action is not None:
            progress.update(action)
        # TextWorld records a command without effect, such as opening an open door, as a repeat of the last action.
        actions.append(action if action is not None else actions[-1])
        triggered += [(event.event, list(actions), commands[:count]) for event in pending if event.triggered]
        pending = [event for event in pending if not event.triggered]
    for event, event_actions, event_commands in triggered:
        event.actions, event.commands = event_actions, event_commands


def _action_of(command: str, actions: Iterable[Any], command_names: Any) -> Any | None:
    """Return the action that a command triggers: of several, the one with the most preconditions."""
    ranked = sorted(actions, key=lambda action: len(action.preconditions), reverse=True)
    commands = command_names.gen_commands_from_actions(ranked)
    return next((action for text, action in zip(commands, ranked, strict=True) if text == command), None)
