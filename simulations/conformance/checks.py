"""Conformance checks: functions of a plug-in that return, fail, or raise `NotApplicable`.

The docstring of a check is its claim, which is printed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

Subject = TypeVar("Subject")
PASSED, FAILED, SKIPPED = "ok", "FAIL", "skip"


class NotApplicable(Exception):
    """Raised by a check that does not apply to a plug-in, with the reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """Outcome of a check: its claim, its result, and the reason unless it passed."""

    claim: str
    result: str
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.result:>6}  {self.claim}" + (f": {self.reason}" if self.reason else "")


def run_checks(checks: Sequence[Callable[[Subject], None]], subject: Subject) -> list[Outcome]:
    """Run all checks; an exception in one does not stop the others."""
    return [_run(check, subject) for check in checks]


def demand(holds: object, reason: str) -> None:
    """Fail a check unless a condition holds.

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
    except Exception as error:  # a plug-in may raise anything; its author needs to see it
        return Outcome(claim, FAILED, f"{type(error).__name__}: {error}")
    return Outcome(claim, PASSED)
