"""Red lines: commands that no candidate may make likelier, whatever it wins.

They are measured on public prompts: the mean probability of the commands that match a red line, over prompts that list
one. Where few prompts list a command, it is added to others as one more choice, so that a server can watch a command
that its prompts do not show. A red line with ``*`` cannot be added: some prompt must list a command that matches it.

The operator names them in a file (`server.red-lines`), and families of games declare them: see
`fedoel.protocol.red_lines`.

Only versions are held to them. A context that devices play during a cycle, or try, is not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from ..policies.policy import Policy
from ..protocol.errors import ConfigError
from ..protocol.red_lines import LONGEST, MOST_LINES, plain
from ..protocol.situation import Situation

MOST_PROMPTS = 64  # on which one red line is measured
CROSSED = "red line "  # how the reason of a refused candidate begins
FEWEST_PROMPTS = 32  # below which a command is added to prompts that do not list it


def read_red_lines(path: Path) -> tuple[str, ...]:
    """Read red lines: one a line in lower case; empty lines and those that begin with ``#`` are left out.

    Raises
    ------
    ConfigError
        If the file cannot be read, holds none or too many, or a line is too long.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise ConfigError(f"server.red-lines: {path} cannot be read ({error})") from error
    red_lines = joined([line for line in map(plain, lines) if line and not line.startswith("#")])
    if not 0 < len(red_lines) <= MOST_LINES or any(len(line) > LONGEST for line in red_lines):
        raise ConfigError(
            f"server.red-lines: {path} must hold 1 to {MOST_LINES} lines of at most {LONGEST} characters, not "
            f"{len(red_lines)}"
        )
    return red_lines


def joined(*lists: Sequence[str]) -> tuple[str, ...]:
    """Return the red lines of several lists in the form in which they are compared, each once."""
    return tuple(dict.fromkeys(plain(line) for lines in lists for line in lines))


@dataclass(frozen=True)
class RedLines:
    """Red lines and the public prompts that watch them.

    Parameters
    ----------
    lines
        What `joined` returned.
    situations
        Returns public situations, each with several commands.
    """

    lines: tuple[str, ...]
    situations: Callable[[], Sequence[Situation]]

    @property
    def name(self) -> str:
        """Digest of the lines."""
        return sha256("\n".join(self.lines).encode()).hexdigest()[:8]

    def check(self) -> None:
        """Check that there are prompts to measure every red line on.

        Raises
        ------
        ConfigError
            If there are none for one of them.
        """
        _ = self._watched

    def likelihoods(self, policy: Policy) -> NDArray[np.float64]:
        """Return the mean probability of each red line, shape ``(len(lines),)``; raises as `check`."""
        answers = iter(policy.score([situation for prompts in self._watched for situation in prompts]))
        means = list[float]()
        for line, prompts in zip(self.lines, self._watched, strict=True):
            chosen = [[matches(line, command) for command in situation.admissible] for situation in prompts]
            means.append(
                float(np.mean([np.exp(next(answers).astype(np.float64))[np.array(mask)].sum() for mask in chosen]))
            )
        return np.array(means)

    @cached_property
    def _watched(self) -> list[list[Situation]]:
        """The prompts that each red line is measured on."""
        situations = self.situations()
        return [_prompts_for(line, situations) for line in self.lines]


def matches(line: str, command: str) -> bool:
    """Whether a command crosses a red line: they are equal up to case and spaces, or ``*`` stands for what differs."""
    return fnmatchcase(plain(command), line.replace("[", "[[]").replace("?", "[?]"))


def crossing(
    lines: Sequence[str],
    first: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    tolerance: float,
) -> str:
    """Return which red line a candidate crosses most, and how; empty if it crosses none.

    Parameters
    ----------
    first, before, after
        Mean probabilities of the lines with the run's first version, with the current one and with the candidate. The
        first version is a limit, too: small rises that are tolerated cannot add up beyond it.
    """
    rises = np.asarray(after) - np.maximum(before, np.minimum(first, before) + tolerance)
    worst = int(np.argmax(rises))
    if rises[worst] <= 0:
        return ""
    return (
        f"{CROSSED}{lines[worst]!r}: probability {before[worst]:.1%} -> {after[worst]:.1%} on public prompts, first "
        f"version {first[worst]:.1%}, tolerated rise {tolerance:.1%}"
    )


def _prompts_for(line: str, situations: Sequence[Situation]) -> list[Situation]:
    listing = [s for s in situations if any(matches(line, command) for command in s.admissible)][:MOST_PROMPTS]
    if "*" in line or len(listing) >= FEWEST_PROMPTS:
        if not listing:
            raise ConfigError(
                f"red lines: no public prompt lists a command that matches {line!r}: write a command without *, or add "
                "prompts that list one"
            )
        return listing
    others = [s for s in situations if not any(matches(line, command) for command in s.admissible)]
    added = [replace(s, admissible=(*s.admissible, line)) for s in others[: FEWEST_PROMPTS - len(listing)]]
    if not listing and not added:
        raise ConfigError(f"red lines: there are no public prompts with several commands to watch {line!r} on")
    return [*listing, *added]
