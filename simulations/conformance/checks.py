"""Conformance checks: functions of a plug-in that return, fail, or raise `NotApplicable`.

A module holds the checks of one kind of plug-in, named ``check_...``. A check's docstring is its claim, which is
printed. Checks of codecs and policies use turns of uniform play in pure Python; any plug-in must complete whole cycles
of a small federation.
"""

from __future__ import annotations

import logging
import zlib
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import ClassVar, TypeVar

import numpy as np
from numpy.typing import NDArray

from ...codecs.tactics.policy import uniform_policy
from ...games.player import play_episodes
from ...games.splits import Split, for_split, game_seed
from ...policies.abilities import EMBEDDING
from ...policies.policy import LogProbs, Policy
from ...protocol.config import RunConfig, Scalar
from ...protocol.errors import FedoelError
from ...protocol.play import GameSpec, Turn
from ...protocol.situation import Situation
from ...server.cycle.phases import Outcome as Phase
from ...server.cycle.phases import load_phase
from ..inprocess import run_inprocess

Subject = TypeVar("Subject")
PASSED, FAILED, SKIPPED = "ok", "FAIL", "skip"
HIDDEN = 96  # size of a made-up embedding
SPEC, GAMES = GameSpec.parse("frozen-lake size=4 turns=6"), 12
SETTINGS: dict[str, Scalar] = {
    "name": "check-plugin", "clients": 8, "cycles": 2, "policy.backend": "tactics", "games.per-client": 3,
    "games.families": "frozen-lake size=3 turns=6", "games.rehearsal": 8, "games.gate": 4, "games.held-out": 8,
    "server.public": "games",
}  # fmt: skip


WITHOUT_GAMES: dict[str, Scalar] = {
    "server.public": "prompts", "server.pack": 60, "server.prompts-per-cycle": 30, "trial.contexts": False,
    "trial.share": 1.0,  # so that groups are whole in a part of a trial, too
}  # fmt: skip


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
    except (Exception, SystemExit) as error:  # a plug-in may raise anything; its author needs to see it
        return Outcome(claim, FAILED, f"{type(error).__name__}: {error}")
    return Outcome(claim, PASSED)


@dataclass(frozen=True, slots=True, eq=False)
class EmbeddedPolicy:
    """A policy whose commands have given embeddings: `embeddings` returns those of a situation, shape (A, hidden)."""

    policy: Policy
    embeddings: Callable[[Situation], NDArray[np.float32]]
    abilities: ClassVar[frozenset[str]] = frozenset({EMBEDDING})

    @property
    def version(self) -> str:
        return self.policy.version

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        """Prompt tokens of each situation."""
        return self.policy.tokens(situations)

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        """Log-probabilities of each situation's commands."""
        return self.policy.score(situations)

    def embed(self, situations: Sequence[Situation]) -> list[NDArray[np.float32]]:
        """Embeddings of each situation's commands."""
        return [self.embeddings(situation) for situation in situations]

    def score_and_embed(self, situations: Sequence[Situation]) -> list[tuple[LogProbs, NDArray[np.float32]]]:
        """Return both."""
        return list(zip(self.score(situations), self.embed(situations), strict=True))


def embedding_policy(policy: Policy | None = None) -> EmbeddedPolicy:
    """Return a policy, by default the uniform one, with made-up embeddings, drawn from a hash of each command."""
    return EmbeddedPolicy(policy or uniform_policy(), _made_up)


def _made_up(situation: Situation) -> NDArray[np.float32]:
    seeds = [zlib.crc32(f"{situation.place_text} {situation.turn} {c}".encode()) for c in situation.admissible]
    return np.stack([np.random.default_rng(seed).normal(size=HIDDEN) for seed in seeds]).astype(np.float32)


@cache
def turns() -> tuple[Turn, ...]:
    """Return turns of uniform play."""
    spec = for_split(SPEC, Split.REHEARSAL)
    games = [(spec, game_seed(Split.REHEARSAL, index)) for index in range(GAMES)]
    played = play_episodes(uniform_policy(), games, list(range(GAMES)), Path("nowhere"))
    return tuple(turn for trajectory in played for turn in trajectory.turns)


def situations() -> list[Situation]:
    """Return the situations of these turns."""
    return [turn.situation for turn in turns()]


def go_through_a_run(**settings: Scalar) -> None:
    """Run two cycles twice, and compare the aggregates.

    Raises
    ------
    AssertionError
        If a cycle accepted no vector, or the second run gives another aggregate.
    """
    flat = _flat(settings)
    noisy = flat.get("privacy.mechanism", "none") != "none"
    first, *repeats = [_phases(flat, "collect") for _ in range(1 if noisy else 2)]
    demand(len(first) == 2, "a cycle collected nothing")
    for number, phase in enumerate(first, start=1):
        demand(phase.values["accepted"], f"no vector was used in cycle {number}: {phase.values['refused']}")
    for repeat in repeats:
        for one, other in zip(first, repeat, strict=True):
            same = np.array_equal(one.arrays.get("vector", ()), other.arrays.get("vector", ()))
            demand(same, "the same run gives another aggregate the second time: draw from a generator with a seed")


def trials_of_a_run(**settings: Scalar) -> list[Phase]:
    """Run two cycles whose server has no games, and return what its gate saw of candidates, in one trial or more."""
    return _phases({**_flat(settings), **WITHOUT_GAMES}, "gate")


def _flat(settings: Mapping[str, Scalar]) -> dict[str, Scalar]:
    return {**SETTINGS, **{key.replace("__", ".").replace("_", "-"): value for key, value in settings.items()}}


def _phases(settings: dict[str, Scalar], name: str) -> list[Phase]:
    """Run the federation without Flower's log, and read a phase's outcome of every cycle that has it."""
    flower = logging.getLogger("flwr")
    before = flower.level
    flower.setLevel(logging.ERROR)
    try:
        with TemporaryDirectory(prefix="fedoel-check-", ignore_cleanup_errors=True) as folder:
            out = Path(folder) / "run"
            run_inprocess(RunConfig.from_flat({**settings, "out": str(out), "cache": str(Path(folder) / "cache")}))
            found = list[Phase]()
            for cycle in (1, 2):
                with suppress(FedoelError):  # it has no such phase
                    found.append(load_phase(out, cycle, name))
            return found
    finally:
        flower.setLevel(before)
