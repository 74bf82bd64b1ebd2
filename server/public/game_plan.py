"""Which public games a run plays for what: all derived from its configuration."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import chain

from ...games.families import settings_of
from ...games.partition import check_private_games, mixtures
from ...games.splits import Split, assert_disjoint, for_split, game_seed
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.play import GameId, GameSpec, specs_from_text
from ..run_plan import RunPlan


@dataclass(frozen=True, slots=True)
class GamePlan(RunPlan):
    """The public games of a run, every family in equal shares.

    `gate` holds one block of games after the other, as many in each as `games.gate` says.

    `transfer` are held-out games, by name, of kinds that nobody learns from; as many of each as of a family that is
    learned from.
    """

    rehearsal: tuple[GameId, ...]
    gate: tuple[tuple[GameId, ...], ...]
    held_out: tuple[GameId, ...]
    transfer: Mapping[str, tuple[GameId, ...]]
    prompts_per_cycle: int = 0

    @classmethod
    def of(cls, config: RunConfig) -> GamePlan:
        """Derive the games.

        Raises
        ------
        ConfigError
            If the configuration names no games, the same family twice, an unknown family or setting, more clients or
            games than there are seeds, or games to learn from among those for transfer.
        """
        run, games = RunPlan.of(config), config.games
        check_private_games(games.per_client, config.clients, config.cycles, games.amounts, config.seed)
        game_seed(Split.GATE, games.gate_blocks * games.gate - 1)
        mixtures(run.specs, config.clients, games.partition, config.seed)
        plan = cls(
            run.specs,
            run.seed,
            _games(run.specs, Split.REHEARSAL, games.rehearsal),
            tuple(_games(run.specs, Split.GATE, games.gate, block) for block in range(games.gate_blocks)),
            _games(run.specs, Split.HELD_OUT, games.held_out),
            _transfer(run.specs, games.transfer, math.ceil(games.held_out / len(run.specs))),
            games.prompts,
        )
        assert_disjoint((*plan.rehearsal, *chain.from_iterable(plan.gate)), plan.measured)
        return plan

    @property
    def measured(self) -> tuple[GameId, ...]:
        """All games that every version plays and that are reported on."""
        return (*self.held_out, *(game for games in self.transfer.values() for game in games))

    def prompts(self, cycle: int) -> tuple[GameId, ...]:
        """Return the games of a cycle whose states are distilled on and whose rewards nobody uses."""
        # Behind the rehearsal games, whose range of seeds they share: training games, disjoint from those measured.
        games = _games(self.specs, Split.REHEARSAL, len(self.rehearsal) + cycle * self.prompts_per_cycle)
        return games[len(games) - self.prompts_per_cycle :]


def _games(specs: tuple[GameSpec, ...], split: Split, count: int, block: int = 0) -> tuple[GameId, ...]:
    """Return a block of `count` games, without those of the blocks before."""
    return tuple((for_split(specs[i % len(specs)], split), game_seed(split, block * count + i)) for i in range(count))


def _transfer(learned: tuple[GameSpec, ...], text: str, count: int) -> dict[str, tuple[GameId, ...]]:
    specs = specs_from_text(text)
    known = [(spec.family, settings_of(spec)) for spec in learned]
    if any((spec.family, settings_of(spec)) in known for spec in specs) or len(set(specs)) < len(specs):
        raise ConfigError(f"games.transfer must name games that nobody learns from, each once, not {text!r}")
    return {str(spec): _games((spec,), Split.HELD_OUT, count) for spec in specs}
