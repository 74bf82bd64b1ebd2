"""Red lines: commands and answers that no candidate may make likelier, whatever it wins.

They are measured on public prompts: the mean probability of the commands that match a red line, over prompts that list
one. Where few prompts list a command, it is added to others as one more choice, so that a server can watch a command
that its prompts do not show. A red line with ``*`` cannot be added: some prompt must list a command that matches it.

Where a policy writes its answers, red lines are also measured on open prompts, by what it writes: see `_written`.

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

from ..policies.abilities import speaker
from ..policies.policy import Policy, Weighing
from ..protocol.errors import ConfigError
from ..protocol.red_lines import LONGEST, MOST_LINES, plain
from ..protocol.situation import Situation

MOST_PROMPTS = 64  # on which one red line is measured
MOST_SPELLINGS = 8  # of a line, whose probabilities are added up
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
    unlisted
        Returns public situations without commands.
    writes
        Whether the policy writes its answers.
    seed
        Of the answers that it writes to be watched.
    """

    lines: tuple[str, ...]
    situations: Callable[[], Sequence[Situation]]
    unlisted: Callable[[], Sequence[Situation]] = list
    writes: bool = False
    seed: int = 0

    @property
    def name(self) -> str:
        """Digest of what is measured."""
        written = (f"{len(self._open)} open prompts",) if self._open else ()
        return sha256("\n".join((*self.lines, *written)).encode()).hexdigest()[:8]

    @property
    def measured(self) -> tuple[str, ...]:
        """The lines that `likelihoods` are of: as commands, then as answers to open prompts, the last `written`."""
        return (*(line for line, _ in self._watched), *(self.lines if self._open else ()))

    @property
    def written(self) -> int:
        """How many lines are measured by what the policy writes."""
        return len(self.lines) if self._open else 0

    def check(self) -> None:
        """Check that there are prompts to measure every red line on.

        Raises
        ------
        ConfigError
            If there are none for one of them.
        """
        _ = self._watched

    def likelihoods(self, policy: Policy) -> NDArray[np.float64]:
        """Return the mean probability of each line in `measured`, shape ``(len(measured),)``; raises as `check`."""
        answers = iter(policy.score([situation for _, prompts in self._watched for situation in prompts]))
        means = list[float]()
        for line, prompts in self._watched:
            chosen = [[matches(line, command) for command in situation.admissible] for situation in prompts]
            means.append(
                float(np.mean([np.exp(next(answers).astype(np.float64))[np.array(mask)].sum() for mask in chosen]))
            )
        return np.array([*means, *(_written(self.lines, policy, self._open, self.seed) if self._open else ())])

    @cached_property
    def _watched(self) -> list[tuple[str, list[Situation]]]:
        """The lines that are measured as commands, each with its prompts: all lines, but those with ``*`` that only
        match what is written.
        """
        watched = list[tuple[str, list[Situation]]]()
        for line in self.lines:
            try:
                watched.append((line, _prompts_for(line, self._situations)))
            except ConfigError:
                if not self._open:
                    raise
        return watched

    @cached_property
    def _open(self) -> list[Situation]:
        """The prompts that answers are written to, at even distances: those of one game follow each other."""
        if not self.writes:
            return []
        found = [*(situation for situation in self._situations if situation.open), *self.unlisted()]
        number = min(MOST_PROMPTS, len(found))
        return [found[index * len(found) // number] for index in range(number)]

    @cached_property
    def _situations(self) -> Sequence[Situation]:
        return self.situations()


def _written(lines: Sequence[str], policy: Policy, prompts: Sequence[Situation], seed: int) -> list[float]:
    """Return how likely a policy's answers to open prompts are to cross each line.

    It writes a few answers to each prompt. A line is as likely as answers that match it are frequent, unless it stands
    for few texts: itself, and other spellings that were written. Then their exact probabilities are added up.

    Raises
    ------
    ConfigError
        If the policy does not say how likely a text is.
    """
    writer = speaker(policy)
    if not isinstance(writer, Weighing):
        raise ConfigError(
            "red lines: this policy writes answers, and cannot say how likely a text is (`log_likelihoods`): set "
            'policy.decoding = "tree", or give it that method'
        )
    streams = [np.random.default_rng([seed, number]) for number in range(len(prompts))]
    answers = [answer for some in writer.sample(list(zip(prompts, streams, strict=True))) for answer in some]
    found, spellings = dict[str, float](), dict[str, list[str]]()
    for line in lines:
        crossing_it = [answer.text for answer in answers if matches(line, answer.command)]
        texts = list(dict.fromkeys([*([] if "*" in line else [line]), *crossing_it]))
        if "*" in line or len(texts) > MOST_SPELLINGS:
            found[line] = len(crossing_it) / len(answers)
        else:
            spellings[line] = texts
    known = list(dict.fromkeys(text for texts in spellings.values() for text in texts))
    if known:
        weighed = writer.log_likelihoods([(prompt, known) for prompt in prompts])
        means = dict(zip(known, np.exp(np.stack(weighed)).mean(axis=0), strict=True))
        found |= {line: float(sum(means[text] for text in texts)) for line, texts in spellings.items()}
    return [found[line] for line in lines]


def matches(line: str, command: str) -> bool:
    """Whether a command crosses a red line: they are equal up to case and spaces, or ``*`` stands for what differs."""
    return fnmatchcase(plain(command), line.replace("[", "[[]").replace("?", "[?]"))


def crossing(
    lines: Sequence[str],
    first: Sequence[float],
    before: Sequence[float],
    after: Sequence[float],
    tolerance: float,
    written: int = 0,
) -> str:
    """Return which red line a candidate crosses most, and how; empty if it crosses none.

    Parameters
    ----------
    first, before, after
        Mean probabilities of the lines with the run's first version, with the current one and with the candidate. The
        first version is a limit, too: small rises that are tolerated cannot add up beyond it.
    written
        How many of the lines, the last ones, are about what is written to open prompts.
    """
    rises = np.asarray(after) - np.maximum(before, np.minimum(first, before) + tolerance)
    worst = int(np.argmax(rises))
    if rises[worst] <= 0:
        return ""
    where = "in answers to open prompts" if worst >= len(lines) - written else "on public prompts"
    return (
        f"{CROSSED}{lines[worst]!r}: probability {before[worst]:.1%} -> {after[worst]:.1%} {where}, first "
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
