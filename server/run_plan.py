"""What a run asks of devices and trains with, derived from its configuration; it needs no games."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np

from ..codecs.encoder import Encoder
from ..protocol.config import RunConfig
from ..protocol.errors import ConfigError
from ..protocol.experience import VectorSpec
from ..protocol.play import GAMES_PER_CLIENT, GameSpec, specs_from_text


@dataclass(frozen=True, slots=True)
class RunPlan:
    """The games that devices play, by specification, and the run's random streams."""

    specs: tuple[GameSpec, ...]
    seed: int

    @classmethod
    def of(cls, config: RunConfig) -> RunPlan:
        """Read the configuration.

        Raises
        ------
        ConfigError
            If it names no games or the same family twice, or needs more private games than a client has.
        """
        specs = specs_from_text(config.games.families)
        families = [spec.family for spec in specs]
        if not specs or len(set(families)) < len(families):
            raise ConfigError(
                f"games.families must name at least one game, such as 'tidy things=1 turns=6', each family once, not "
                f"{families or repr(config.games.families)}"
            )
        # A trial plays the first games of the next cycle.
        games = (config.cycles + 1) * config.games.per_client
        if games > GAMES_PER_CLIENT:
            raise ConfigError(
                f"games.per-client {config.games.per_client} in cycles {config.cycles} are {games:,} games of a "
                f"client, and there are {GAMES_PER_CLIENT:,}: lower one of them"
            )
        return cls(specs, config.seed)

    @property
    def families(self) -> tuple[str, ...]:
        return tuple(spec.family for spec in self.specs)

    @property
    def horizon(self) -> int:
        return max(spec.max_turns for spec in self.specs)

    def vector_spec(self, config: RunConfig, encoder: Encoder, version: str) -> VectorSpec:
        """Return the vector that the run asks for about a policy version."""
        return VectorSpec(
            encoder.name, encoder.dimension, encoder.vocabulary, version, self.families, self.horizon,
            config.codec.clipping_norm, config.codec.fisher_norm,
        )  # fmt: skip

    def streams(self, purpose: str, count: int, cycle: int = 0) -> list[int]:
        """One seed of a random stream an episode; policies that are compared share purpose and cycle."""
        return [
            int(np.random.SeedSequence([self.seed, _number(purpose), cycle, i]).generate_state(1, np.uint64)[0])
            for i in range(count)
        ]

    def training_seed(self, cycle: int) -> int:
        """Seed of the order in which a cycle's public states are trained on."""
        return int(np.random.SeedSequence([self.seed, _number("distil"), cycle]).generate_state(1)[0])


def _number(purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(purpose.encode()).digest()[:4], "big")
