"""What happens in a game, as frozen plain data: specifications, observations, turns and trajectories."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .errors import ConfigError
from .situation import Situation

Setting = int | str | bool
INVALID = -1


@dataclass(frozen=True, slots=True)
class GameSpec:
    """What travels instead of a game: the family, its settings and the turn limit. A seed picks the instance.

    Parameters
    ----------
    family
        Name of a registered family, e.g. ``"coin-collector"``.
    settings
        Sorted ``(name, value)`` pairs that the family understands.
    max_turns
        Commands after which an episode is truncated.
    """

    family: str
    settings: tuple[tuple[str, Setting], ...]
    max_turns: int

    @classmethod
    def parse(cls, text: str) -> GameSpec:
        """Read ``"coin-collector level=102 turns=7"``.

        Raises
        ------
        ConfigError
            If a word is not ``name=value`` or ``turns`` is missing or not positive.
        """
        family, *words = text.split()
        settings: dict[str, Setting] = {}
        for word in words:
            name, equals, value = word.partition("=")
            if not (name and equals and value):
                raise ConfigError(f"game {text!r}: {word!r} is not name=value")
            settings[name] = int(value) if value.lstrip("-").isdigit() else value
        turns = settings.pop("turns", None)
        if not isinstance(turns, int) or turns < 1:
            raise ConfigError(f"game {text!r}: say how long an episode may be, e.g. 'turns=10'")
        return cls(family, tuple(sorted(settings.items())), turns)

    def __str__(self) -> str:
        return " ".join([self.family, *(f"{k}={v}" for k, v in self.settings), f"turns={self.max_turns}"])


@dataclass(frozen=True, slots=True)
class Observation:
    """What a game answers to a command. It carries no history: the player owns it.

    `won` and `lost` are latched; `truncated` means the turn limit ended the episode; `valid` is False when the
    last command was not admissible and did nothing; `turn` counts the commands given so far.
    """

    text: str
    goal: str
    admissible: tuple[str, ...]
    score: float
    max_score: float
    done: bool
    won: bool
    lost: bool
    truncated: bool
    valid: bool
    turn: int


@dataclass(frozen=True, slots=True)
class Turn:
    """One decision: what the player knew, how likely each admissible command was, which one it gave, what came of it.

    `log_probs` has shape ``(len(situation.admissible),)``, natural log, under the policy that played.
    `reward` is the change of score over the maximal score, minus one if this command lost the game. `response` is what
    a policy that writes freely wrote; where that ends in no admissible command, `action` is `INVALID`.
    """

    situation: Situation
    log_probs: NDArray[np.float32]
    action: int
    reward: float
    response: str = ""

    @property
    def valid(self) -> bool:
        return self.action != INVALID

    @property
    def command(self) -> str:
        return self.situation.admissible[self.action] if self.valid else ""


@dataclass(frozen=True, slots=True)
class Trajectory:
    """One episode, played by one policy version. Tokens are those of all prompts and commands, and of all responses."""

    spec: GameSpec
    seed: int
    policy_version: str
    turns: tuple[Turn, ...]
    won: bool
    lost: bool
    score: float
    prompt_tokens: int = 0
    response_tokens: int = 0


def turns_of(trajectories: Iterable[Trajectory]) -> list[Turn]:
    """All turns of some episodes, one after the other."""
    return [turn for trajectory in trajectories for turn in trajectory.turns]


def specs_from_text(text: str) -> tuple[GameSpec, ...]:
    """Read a ``;``-separated list of games, the form that fits into one run-config value."""
    return tuple(GameSpec.parse(part) for part in _non_empty(text.split(";")))


def specs_to_text(specs: Iterable[GameSpec]) -> str:
    """Write what `specs_from_text` reads."""
    return "; ".join(str(spec) for spec in specs)


def _non_empty(parts: Iterable[str]) -> list[str]:
    return [part.strip() for part in parts if part.strip()]
