"""Stage `answers`: a candidate whose answers to public prompts are too often invalid, or too long, is refused untried.

Both kinds of server have public prompts: a pack, or the states of random play in public games. No engine judges an
answer here. One to a prompt with listed commands is invalid if it is none of them, as in a game. Any text may answer an
open prompt; an answer counts as invalid there if it holds no text or was cut off at `policy.response-tokens`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np

from ...policies.abilities import speaker
from ...policies.policy import Answer
from ...protocol.config import RunConfig, ServerConfig
from ...protocol.errors import ConfigError
from ...protocol.prompts import command_of
from ...protocol.situation import Situation
from ..learner import UNFIT
from .distil import Trained
from .phases import record_form
from .run import Run

MOST_PROMPTS = 128  # that a candidate answers, once each: a share has a standard error of 4.4 percentage points at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Written:
    """What a candidate has written: number of answers, share of invalid ones, and mean tokens of an answer."""

    answers: int
    invalid: float
    tokens: float


WRITTEN = record_form(Written)


def check_bounds(config: RunConfig) -> None:
    """Refuse bounds on answers that could never refuse a candidate.

    Raises
    ------
    ConfigError
        If the policy does not write its answers, or none could be longer than the bound on their mean length.
    """
    bounds = {"max-invalid": config.server.max_invalid, "max-answer-tokens": config.server.max_answer_tokens}
    name = next((name for name, bound in bounds.items() if bound), "")
    if name and config.policy.decoding != "free":
        raise ConfigError(
            f"server.{name} is about what a policy writes, and with policy.decoding {config.policy.decoding!r} it "
            f'chooses among commands: set policy.decoding = "free", or server.{name} = 0'
        )
    if config.server.max_answer_tokens >= config.policy.response_tokens:
        raise ConfigError(
            f"server.max-answer-tokens {config.server.max_answer_tokens:g} refuses nothing: no answer is longer than "
            f"policy.response-tokens {config.policy.response_tokens}; set it below, or to 0 for no bound"
        )


def unfit(run: Run, cycle: int, name: str, candidate: Trained) -> str:
    """Return what is wrong with a candidate's answers, as the run's record says it; empty if they keep to the bounds.

    Nothing is written in a run without bounds.

    Parameters
    ----------
    name
        Of the phase.
    """
    config = run.config.server
    if not config.max_invalid and not config.max_answer_tokens:
        return ""
    written = run.phases.run(cycle, name, WRITTEN, lambda advance: _write(run, candidate))
    what = _beyond(config, written)
    return f"{UNFIT}: {'; '.join(what)}" if what else ""


def _write(run: Run, candidate: Trained) -> Written:
    """Let a candidate answer public prompts, the same ones with the same random streams in every cycle."""
    writer = speaker(run.learner.policy(candidate.adapter, measured=True))
    situations = _spread(run.public.situations())
    if writer is None or not situations:
        raise ConfigError(
            "server.max-invalid and server.max-answer-tokens need a policy that writes its answers, and public prompts "
            "with several commands: set them to 0"
        )
    streams = [np.random.default_rng(seed) for seed in run.plan.streams("answers", len(situations))]
    answers = writer.respond(list(zip(situations, streams, strict=True)))
    return Written(
        answers=len(answers),
        invalid=fmean(map(_invalid, situations, answers)),
        tokens=fmean(len(answer.tokens) for answer in answers),
    )


def _spread(situations: Sequence[Situation]) -> list[Situation]:
    """Return at most `MOST_PROMPTS` of them at even distances: those of one game follow each other."""
    number = min(MOST_PROMPTS, len(situations))
    return [situations[index * len(situations) // number] for index in range(number)]


def _invalid(situation: Situation, answer: Answer) -> bool:
    if situation.open:
        return not answer.finished or not command_of(answer.text)
    return answer.command not in situation.admissible


def _beyond(config: ServerConfig, written: Written) -> list[str]:
    what = []
    if config.max_invalid and written.invalid > config.max_invalid:
        what.append(
            f"{written.invalid:.1%} of {written.answers} are invalid, and server.max-invalid is {config.max_invalid:g}"
        )
    if config.max_answer_tokens and written.tokens > config.max_answer_tokens:
        what.append(
            f"{written.tokens:.1f} tokens on average, and server.max-answer-tokens is {config.max_answer_tokens:g}"
        )
    return what
