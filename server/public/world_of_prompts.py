"""A server that never plays: it has a pack of prompts, and its fleet is the only source of reward, and the gate."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path

from ...codecs.encoder import load_encoder
from ...policies.abilities import EMBEDDING
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError, FedoelError
from ...protocol.play import Trajectory
from ...protocol.prompt_pack import read_pack
from ...protocol.records.summary import Floor, Floors, Measures, Results
from ..cycle.contender import Contender
from ..cycle.run import World
from ..evaluation import UNKNOWN
from ..events import Advance
from ..fleet_gate import FleetGate
from ..gate import Evidence
from ..run_plan import RunPlan
from .prompts import PromptsPublic

LEAST = 16  # prompts with a choice that a pack must have


def world(config: RunConfig, cache: Path) -> World:
    """Return the parts of a run whose server has prompts only.

    Raises
    ------
    ConfigError
        If there is no pack, it cannot be read, or it has too few prompts to choose an answer to; if a trial has more
        games than a cycle; or if the baseline needs counters that noise hides.
    """
    if not config.server.prompts:
        raise ConfigError(
            'server.public = "prompts" needs a pack of prompts: fedoel prompts make FAMILIES --out FILE, and '
            "server.prompts = FILE"
        )
    if config.policy.decoding == "free" and EMBEDDING not in load_encoder(config.codec.name).required_abilities:
        raise ConfigError('policy.decoding "free" needs codec.name "embedding", or server.public = "games"')
    if config.trial.games > config.games.per_client:
        raise ConfigError(
            f"trial.games {config.trial.games} is more than games.per-client {config.games.per_client}: the games of a "
            "trial are the first of a device's next cycle"
        )
    if config.server.baseline == "fleet" and config.privacy.mechanism != "none":
        raise ConfigError(
            'server.baseline "fleet" needs counters, which a run with noise does not ask for: leave it at "device", or '
            'set privacy.mechanism to "none"'
        )
    pack = read_pack(Path(config.server.prompts))
    if sum(len(prompt.situation.admissible) > 1 for prompt in pack.prompts) < LEAST:
        raise ConfigError(f"{config.server.prompts} has fewer than {LEAST} prompts with several commands: make more")
    plan = RunPlan.of(config)
    public = PromptsPublic(pack, config.server.prompts_per_cycle, config.seed)
    return World(plan, public, FleetGate(config, plan, {}), FleetReport(), pack.red_lines)


@dataclass(frozen=True, slots=True)
class FleetReport:
    """What the fleet itself says of a version: its trial. Implements `fedoel.server.cycle.run.Report`."""

    @property
    def episodes(self) -> int:
        """None that the server would play."""
        return 0

    @property
    def teacher_episodes(self) -> int:
        """None that the server would play."""
        return 0

    def floors(self, advance: Advance) -> Floors:
        """Return floors that nobody has measured."""
        unknown = Floor(**asdict(UNKNOWN), families={})
        return Floors(random=unknown, heuristic=unknown, walkthrough=unknown)

    def measures(self, contender: Contender, evidence: Evidence | None, advance: Advance) -> Measures:
        """Return how the version did in the trial that it was promoted in."""
        return Measures(held_out=Results.of(evidence.stats if evidence else UNKNOWN))

    def teacher(self, contender: Contender, evidence: Evidence, advance: Advance) -> Results:
        """Return how the teacher did in its trial."""
        return Results.of(evidence.stats)

    def example(self, contender: Contender) -> Trajectory:
        """Raise: there is no game."""
        raise FedoelError("a server that has prompts only plays no games")
