"""Find out what each command of a walkthrough does, by the logic of a game alone.

TextWorld compiles the game and plays the walkthrough in the interpreter for that, then throws the game away: half of
the time of making a coin collector or cooking game. The logic that it tracks alongside knows all that is asked.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Sequence
from typing import Any


def set_walkthrough(maker: Any, commands: Sequence[str]) -> None:
    """Write down, for each event that wins a quest, what led to it; stands in for ``GameMaker.set_walkthrough``.

    Raises
    ------
    ValueError
        If the game ends before the last command, as TextWorld raises it.
    """
    game = maker.build()
    # Asking settles it, as compiling would: the objective says nothing of the walkthrough that is being found.
    assert game.objective is not None
    progress = importlib.import_module("textworld.generator.game").GameProgression(game)
    names = importlib.import_module("textworld.generator.inform7").Inform7Game(game)
    actions: list[Any] = []
    led_to: list[tuple[Any, list[Any], Sequence[str]]] = []
    pending = [event for quest in progress.quest_progressions for event in quest.win_events if not event.triggered]
    for count, command in enumerate(commands, start=1):
        if progress.done:
            raise ValueError("Game has ended before finishing playing all commands.")
        action = _action_of(command, progress.valid_actions, names)
        if action is not None:
            progress.update(action)
        # TextWorld takes a command that does nothing, opening what is open, for one more of what was done before.
        actions.append(action if action is not None else actions[-1])
        led_to += [(event.event, list(actions), commands[:count]) for event in pending if event.triggered]
        pending = [event for event in pending if not event.triggered]
    for event, done, said in led_to:
        event.actions, event.commands = done, said


def _action_of(command: str, actions: Iterable[Any], names: Any) -> Any | None:
    """Return the action that a command stands for; the most specific one where there are several."""
    ranked = sorted(actions, key=lambda action: len(action.preconditions), reverse=True)
    said = zip(names.gen_commands_from_actions(ranked), ranked, strict=True)
    return next((action for text, action in said if text == command), None)
