"""One episode as text for a person: what the player read, how likely each command was, and how it ended."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..protocol.play import Trajectory, Turn

BAR_WIDTH = 24


def show(trajectory: Trajectory) -> str:
    """Return an episode as text: what the player read, how likely each command was, and how it ended."""
    head = f"{trajectory.spec}, seed {trajectory.seed}, played by {trajectory.policy_version}"
    goal = trajectory.turns[0].situation.goal if trajectory.turns else ""
    turns = [show_turn(number, turn) for number, turn in enumerate(trajectory.turns, 1)]
    return "\n\n".join([head, f"Goal: {goal}", *turns, outcome(trajectory)])


def show_turn(number: int, turn: Turn) -> str:
    """Return one turn: the observation, and a bar for each command with the chosen one marked."""
    situation = turn.situation
    text = situation.reply or situation.place_text
    order = sorted(range(len(situation.admissible)), key=lambda i: -turn.log_probs[i])
    width = max(len(command) for command in situation.admissible)
    bars = [
        f"{'>' if i == turn.action else ' '} {situation.admissible[i].ljust(width)} {_bar(math.exp(turn.log_probs[i]))}"
        for i in order
    ]
    return "\n".join([f"--- turn {number} of {situation.max_turns}", text.strip(), "", *bars])


def outcome(trajectory: Trajectory) -> str:
    """Say how an episode ended."""
    end = "won" if trajectory.won else "lost" if trajectory.lost else "out of turns"
    turns = len(trajectory.turns)
    return f"=== {end} after {turns} {'turn' if turns == 1 else 'turns'}, score {trajectory.score:.0%}"


def _bar(probability: float) -> str:
    return f"{'█' * round(BAR_WIDTH * probability):<{BAR_WIDTH}} {probability:6.1%}"
