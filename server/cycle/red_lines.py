"""Stage `red-lines`: a candidate that makes a red line likelier is refused before any device is asked to try it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..events import Advance
from ..learner import Adapter
from ..red_lines import RedLines, crossing
from .distil import TRAINED, Trained
from .phases import record_form
from .run import Run, State


@dataclass(frozen=True, slots=True, kw_only=True)
class Likelihoods:
    """Mean probabilities of red lines with the first version, the current one and a candidate.

    The last `written` of the lines are about what these versions write to open prompts.
    """

    lines: tuple[str, ...]
    first: tuple[float, ...]
    before: tuple[float, ...]
    after: tuple[float, ...]
    written: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstLikelihoods:
    """Mean probabilities of red lines with the first version."""

    means: tuple[float, ...]


LIKELIHOODS, FIRST_LIKELIHOODS = record_form(Likelihoods), record_form(FirstLikelihoods)


def crossed(run: Run, state: State, cycle: int, name: str, candidate: Trained) -> str:
    """Return which red line a candidate crosses, as the run's record says it; empty if it crosses none.

    Parameters
    ----------
    name
        Of the phase.
    """
    red_lines = run.red_lines
    if red_lines is None:
        return ""

    def work(advance: Advance) -> Likelihoods:
        before, after = (_means(run, red_lines, adapter) for adapter in (state.version.adapter, candidate.adapter))
        first = _first(run, red_lines)
        return Likelihoods(
            lines=red_lines.measured, first=tuple(first), before=before, after=after, written=red_lines.written
        )

    seen = run.phases.run(cycle, name, LIKELIHOODS, work)
    tolerance = run.config.server.red_line_tolerance
    return crossing(seen.lines, seen.first, seen.before, seen.after, tolerance, seen.written)


def _first(run: Run, red_lines: RedLines) -> Sequence[float]:
    """Return the likelihoods with the run's first version: measured once for a list of red lines."""

    def work(advance: Advance) -> FirstLikelihoods:
        adapter = TRAINED.read(run.phases.load(0, "warm-start")).adapter
        return FirstLikelihoods(means=_means(run, red_lines, adapter))

    return run.phases.run(0, f"red-lines-{red_lines.name}", FIRST_LIKELIHOODS, work).means


def _means(run: Run, red_lines: RedLines, adapter: Adapter) -> tuple[float, ...]:
    return tuple(map(float, red_lines.likelihoods(run.learner.policy(adapter, measured=True))))
