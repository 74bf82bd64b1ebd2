"""What versions answer before and after, and one game turn by turn, from the records that a run has kept of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ...protocol.records.behaviour import Answers, Question, Replay
from ...protocol.records.summary import Summary
from ...server.compare import compared
from ...server.cycle.behaviour import kept_answers, kept_replay

KEPT = "what was kept of answers"  # as a sentence about damage names it
COMMANDS = 5  # that are shown of a prompt or a turn, before the rest is summed up
LONGEST_TEXT, LONGEST_GOAL = 320, 200  # characters that are shown
FIRST, BEFORE, NOW = "first", "before", "now"
NO_GAMES = (
    "The server of this fleet has no games, so there is none to replay: the answers above are to its public prompts. "
    "The command to watch a game stands below, for a machine that has games."
)
NO_REPLAY = "No game of the current version was kept: the command to watch one stands below."


@dataclass(frozen=True, slots=True)
class Row:
    """A command, its probability with each version in percent, and whether it is the one that was played."""

    command: str
    shares: Sequence[float]
    played: bool = False


@dataclass(frozen=True, slots=True)
class Card:
    """One prompt, or one turn of a game: what was read, and how likely each command was.

    Parameters
    ----------
    head
        Names of the versions, one for each share of a row.
    """

    title: str
    goal: str
    text: str
    head: Sequence[str]
    rows: Sequence[Row]


@dataclass(frozen=True, slots=True)
class Kept:
    """What a run has kept of its current version, of the one before and of its first one; older runs kept nothing."""

    now: Answers
    before: Answers | None
    first: Answers | None
    replay: Replay | None


def kept_of(run: Path, summary: Summary, current: str = "") -> Kept | None:
    """Read what a run has kept; None if it has kept nothing of its current version.

    Parameters
    ----------
    current
        Name of the current version; by default the one that the last cycle ended with.

    Raises
    ------
    FedoelError
        If a file is damaged.
    """
    cycles = [record.cycle for record in reversed(summary.cycles)]
    newest = _newest(run, cycles, current or summary.cycles[-1].version)
    if newest is None:
        return None
    cycle, now = newest
    before = _newest(run, cycles, now.parent) if now.parent else None
    replay = kept_replay(run, cycle)
    return Kept(now, before[1] if before else None, kept_answers(run, 0), replay)


def _newest(run: Path, cycles: Sequence[int], version: str) -> tuple[int, Answers] | None:
    """Return the last of these cycles that kept the answers of a version, and the answers."""
    kept = ((cycle, kept_answers(run, cycle)) for cycle in cycles)
    return next(((cycle, answers) for cycle, answers in kept if answers and answers.version == version), None)


def answers_note(kept: Kept) -> str:
    """Say how much the current version answers otherwise than earlier ones."""
    asked = f"{len(kept.now.questions)} public prompts"
    if not kept.now.parent:
        return f"What the first version answers to {asked}; no version has been promoted yet."
    if kept.before is None:
        return f"What the current version answers to {asked}; nothing was kept of the version before."
    seen = compared(kept.before, kept.now)
    note = (
        f"On {seen.changed} of {seen.prompts} public prompts, the current version has another most likely command than "
        f"the version before (mean KL {seen.kl:.2f} nats)."
    )
    if kept.first is not None and kept.first.version != kept.now.parent:
        note += f" The mean KL from the first version is {compared(kept.first, kept.now).kl:.2f} nats."
    return f"{note} Those that have changed most come first."


def answer_cards(kept: Kept) -> list[Card]:
    """Return a card for each public prompt, those first whose answers differ most from the version before."""
    others = {FIRST: kept.first, BEFORE: kept.before}
    if kept.before and kept.first and kept.before.version == kept.first.version:
        del others[FIRST]
    shown = [(name, other) for name, other in others.items() if other and other.version != kept.now.version]
    shown.append((NOW, kept.now))
    tables = [dict(zip(answers.questions, answers.log_probs, strict=True)) for _, answers in shown]
    last = shown[-2][1] if len(shown) > 1 else kept.now
    order = [shift.question for shift in compared(last, kept.now).shifts]
    return [
        _card(question, [name for name, _ in shown], [table[question] for table in tables])
        for question in order
        if all(question in table for table in tables)
    ]


def replay_note(replay: Replay) -> str:
    """Say which game it is, and how it ended."""
    end = "won" if replay.won else "lost" if replay.lost else "not won"
    turns = f"{len(replay.turns)} {'turn' if len(replay.turns) == 1 else 'turns'}"
    goal = f" Goal: {_clipped(replay.turns[0].question.goal, LONGEST_GOAL)}" if replay.turns else ""
    return (
        f"A held-out game, {replay.game}, seed {replay.seed}, played by the current version: {end} after {turns}. The "
        "arrow marks what it did, and beside it stands how likely earlier versions were to do the same. It is the game "
        f"with the longest solution of the first held-out ones.{goal}"
    )


def replay_cards(replay: Replay) -> list[Card]:
    """Return a card for each turn."""
    head = (FIRST, BEFORE, NOW)[-len(replay.versions) :]
    cards = [_card(turn.question, head, turn.log_probs, turn.answer) for turn in replay.turns]
    return [replace(card, goal="") for card in cards]  # which stands above all of them


def _card(question: Question, head: Sequence[str], log_probs: Sequence[Sequence[float]], played: str = "") -> Card:
    turn = f"turn {question.turn + 1}"
    title = f"{_clipped(question.place, LONGEST_GOAL)}, {turn}" if question.place else turn
    rows = list(_rows(question.commands, log_probs, played))
    return Card(title, _clipped(question.goal, LONGEST_GOAL), _clipped(question.text, LONGEST_TEXT), head, rows)


def _rows(commands: Sequence[str], log_probs: Sequence[Sequence[float]], played: str) -> Iterator[Row]:
    """Yield the commands that are likely with any version and the one that was played, then the sum of the others."""
    if played and played not in commands:
        yield Row(played, (), played=True)
    if not all(log_probs):
        return
    shares = [[100 * math.exp(value) for value in values] for values in zip(*log_probs, strict=True)]
    order = sorted(range(len(commands)), key=lambda i: (commands[i] != played, -max(shares[i])))
    several = order[:COMMANDS] if len(order) > COMMANDS + 1 else order
    for i in sorted(several, key=lambda i: -shares[i][-1]):
        yield Row(commands[i], shares[i], played=commands[i] == played)
    if rest := [shares[i] for i in order if i not in several]:
        yield Row(f"{len(rest)} other commands", [sum(column) for column in zip(*rest, strict=True)])


def _clipped(text: str, longest: int) -> str:
    """Return a text without blank lines, cut at a word where it is too long to be shown."""
    lines = "\n".join(line.rstrip() for line in text.splitlines() if line.strip())
    return lines if len(lines) <= longest else f"{lines[:longest].rsplit(maxsplit=1)[0]} …"
