"""Stages `behaviour` and `replay`: what a version answers to public prompts, and one held-out game of it.

Nothing here decides anything: the records are for people. The page of a run, its report and ``fedoel diff`` read them,
so that none of these loads a model. They cost one batch of prompts, and in a simulation one game, for each version.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from ...policies.policy import LogProbs, Policy
from ...protocol.play import Turn
from ...protocol.records.behaviour import Answers, PlayedTurn, Question, Replay
from ...protocol.situation import Situation
from ..events import Advance
from ..learner import Learner
from ..learner_registry import make_learner
from .contender import Version
from .distil import TRAINED
from .phases import cycle_folder, load_phase, record_form
from .run import Run

ANSWERS, REPLAY = record_form(Answers), record_form(Replay)
BEHAVIOUR, REPLAYED = "behaviour", "replay"  # names of the phases
PROMPTS = 16  # that every version answers
LONGEST = 1_000  # characters that are kept of a text
LEAST, DIGITS = -99.0, 4  # smallest log-probability that is kept, and digits behind the point


def keep_behaviour(run: Run, version: Version, cycle: int, before: Version | None = None) -> None:
    """Keep a version's answers to public prompts.

    Parameters
    ----------
    before
        The version that it was made from; None for the first.
    """
    parent = before.name if before else ""
    run.phases.run(cycle, BEHAVIOUR, ANSWERS, partial(_answers, run, version, parent))


def keep_replay(run: Run, version: Version, cycle: int, before: Version) -> None:
    """Keep one held-out game of a version, with the probabilities of earlier ones beside it, where there are games."""
    if run.report.episodes:
        run.phases.run(cycle, REPLAYED, REPLAY, partial(_replay, run, version, before))


def answers_of(run: Path, cycle: int, version: str) -> Answers | None:
    """Return the answers that a cycle kept of a version; None if it kept none, as in runs of an earlier release.

    Raises
    ------
    FedoelError
        If the file is damaged.
    """
    known = kept_answers(run, cycle)
    return known if known is not None and known.version == version else None


def kept_answers(run: Path, cycle: int) -> Answers | None:
    """Return the answers that a cycle kept, of whichever version; raises as `answers_of`."""
    there = (cycle_folder(run, cycle) / f"{BEHAVIOUR}.npz").exists()
    return ANSWERS.read(load_phase(run, cycle, BEHAVIOUR)) if there else None


def kept_replay(run: Path, cycle: int) -> Replay | None:
    """Return the game that a cycle kept; None if it kept none, raises as `answers_of`."""
    there = (cycle_folder(run, cycle) / f"{REPLAYED}.npz").exists()
    return REPLAY.read(load_phase(run, cycle, REPLAYED)) if there else None


def answers(policy: Policy, name: str, parent: str, situations: Sequence[Situation]) -> Answers:
    """Let a version answer public prompts."""
    scores = policy.score(situations)
    return Answers(
        version=name, parent=parent, questions=tuple(map(_question, situations)), log_probs=tuple(map(_rounded, scores))
    )


def _answers(run: Run, version: Version, parent: str, advance: Advance) -> Answers:
    policy = _learner(run).policy(version.adapter, measured=True)
    return answers(policy, version.name, parent, run.public.sample(PROMPTS))


def _replay(run: Run, version: Version, before: Version, advance: Advance) -> Replay:
    trajectory = run.report.example(run.contender(version.adapter))
    # Of the game's own commands, also where a policy that writes has sampled alternatives of its own.
    situations = [replace(turn.situation, alternatives=()) for turn in trajectory.turns]
    first = TRAINED.read(run.phases.load(0, "warm-start"))
    versions = {each.name: each for each in (Version(first.version, first.adapter), before, version)}
    learner = _learner(run)  # one for all versions, which share the layers below the adapter
    policies = (learner.policy(each.adapter, measured=True) for each in versions.values())
    scores = zip(*(_scores(policy, situations) for policy in policies), strict=True)
    turns = zip(trajectory.turns, situations, scores, strict=True)
    return Replay(
        versions=tuple(versions), game=str(trajectory.spec), seed=trajectory.seed, won=trajectory.won,
        lost=trajectory.lost, score=float(trajectory.score), turns=tuple(_turn(*turn) for turn in turns),
    )  # fmt: skip


def _learner(run: Run) -> Learner:
    """Return a learner with no scene cached: what the run's own one computes must not depend on what is asked here."""
    return make_learner(run.config, run.cache)


def _scores(policy: Policy, situations: Sequence[Situation]) -> list[tuple[float, ...]]:
    """Return log-probabilities of the listed commands, none where a situation lists none."""
    scored = iter(policy.score([situation for situation in situations if situation.admissible]))
    return [_rounded(next(scored)) if situation.admissible else () for situation in situations]


def _turn(turn: Turn, situation: Situation, log_probs: tuple[tuple[float, ...], ...]) -> PlayedTurn:
    answer = (turn.command or turn.response).strip()[:LONGEST]
    return PlayedTurn(question=_question(situation), answer=answer, log_probs=log_probs)


def _question(situation: Situation) -> Question:
    text = (situation.reply or situation.place_text).strip()
    return Question(
        goal=situation.goal[:LONGEST], place=situation.place[:LONGEST], text=text[:LONGEST], turn=situation.turn,
        commands=situation.admissible,
    )  # fmt: skip


def _rounded(log_probs: LogProbs) -> tuple[float, ...]:
    return tuple(round(max(float(value), LEAST), DIGITS) for value in log_probs)
