"""The gate of a server that has games: it plays public ones that nobody learns from."""

from __future__ import annotations

from dataclasses import dataclass

from ...codecs.encoder import Parameters
from ...games.prepare import prepare
from ...strategies.server_side import AskFleet
from ..cycle.contender import Contender, Version
from ..evaluation import summarise
from ..events import Advance
from ..gate import Decisions, Evidence, Gate, Trial
from .games import PublicGames


@dataclass(frozen=True, slots=True)
class PublicGate(Decisions):
    """Plays blocks of public games with every contender; `refusal` as in `fedoel.protocol.play.merit`."""

    public: PublicGames
    refusal: float = 0.0

    @property
    def episodes(self) -> int:
        """One of each game of a block."""
        return len(self.public.plan.gate[0])

    @property
    def blocks(self) -> int:
        """As many as the run's configuration says."""
        return len(self.public.plan.gate)

    def with_fleet(self, ask: AskFleet, parameters: Parameters) -> Gate:
        """Return this gate, which asks nobody."""
        return self

    def evidence(self, cycle: int, current: Version, contender: Contender, block: int, advance: Advance) -> Evidence:
        """Play a block of the gate's games."""
        games = self.public.plan.gate[block - 1]
        if block > 1:  # the first block was prepared with the run's other games
            prepare(games, self.public.cache)
        played = self.public.rollouts(contender, games, "gate" if block == 1 else f"gate-{block}", advance)
        return Evidence(Trial.of(played, self.refusal), summarise(played))
