"""Checks: functions that take what is checked and fail, or say why they do not apply. Their docstrings are printed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Subject = TypeVar("Subject")
PASSED, FAILED, SKIPPED = "ok", "FAIL", "skip"


class NotApplicable(Exception):
    """A check that has nothing to say about this plug-in, and why."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a check found: its claim, how it ended, and why if it did not pass."""

    claim: str
    result: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.result:>6}  {self.claim}" + (f": {self.reason}" if self.reason else "")


def run_checks(checks: Sequence[Callable[[Subject], None]], subject: Subject) -> list[Outcome]:
    """Run every check; one that fails in whatever way does not keep the others from running."""
    return [_run(check, subject) for check in checks]


def demand(holds: object, reason: str) -> None:
    """Fail with a reason unless something holds.

    Raises
    ------
    AssertionError
        With the reason.
    """
    if not holds:
        raise AssertionError(reason)


def _run(check: Callable[[Subject], None], subject: Subject) -> Outcome:
    claim = " ".join((check.__doc__ or check.__name__).split()).rstrip(".")
    try:
        check(subject)
    except NotApplicable as reason:
        return Outcome(claim, SKIPPED, str(reason))
    except AssertionError as reason:
        return Outcome(claim, FAILED, str(reason))
    except Exception as error:  # an author's code may fail in any way, and wants to know which
        return Outcome(claim, FAILED, f"{type(error).__name__}: {error}")
    return Outcome(claim, PASSED)
