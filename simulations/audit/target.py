"""The run that an audit attacks, small enough that an attack costs seconds, and the result of an attack."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace

import numpy as np

from ...codecs.encoder import load_encoder
from ...protocol.config import RunConfig
from ...protocol.experience import VectorSpec
from ...protocol.fleet.trust import Trust
from ...protocol.messages import PlayRequest
from ...protocol.play import specs_from_text
from ...protocol.privacy.plan import PrivacyPlan
from ...protocol.secagg.graph import Graph, choose_graph
from ...protocol.settings import from_table
from ...protocol.versions import Adapter
from ...server.operate.proposal import proposal
from ...server.safeguards import RunSafeguards
from ...strategies.experience import ExperienceStrategy
from ...strategies.registry import build_strategy
from ...strategies.secure_groups import SecureGroups
from ...strategies.secure_mean import SecureMean
from .hostile import HostileRound, HostileServer, everybody, terms_of

LARGEST = 9  # devices of an attacked cohort
GAMES = "frozen-lake size=3 turns=4"
HORIZON = 4
VICTIM = 0  # position of the device whose vector the server wants


@dataclass(frozen=True, slots=True)
class ActiveAttack:
    """The result of one attack.

    Parameters
    ----------
    attack
        What the server does.
    outcome
        What it gets, or why devices refuse.
    recovered
        Whether it gets more than the sums that it is meant to get.
    promised
        Whether the run promises that it does not.
    """

    attack: str
    outcome: str
    recovered: bool = False
    promised: bool = True

    @property
    def broken(self) -> bool:
        """Whether a promise is broken."""
        return self.recovered and self.promised


@dataclass(frozen=True)
class Target:
    """The run that is attacked.

    Parameters
    ----------
    config
        Its configuration.
    folder
        Folder for the devices' files.
    settings
        What every device's owner allows; by default what the fleet would propose.
    """

    config: RunConfig
    folder: Path
    settings: Trust | None = None

    @cached_property
    def small(self) -> RunConfig:
        """The configuration with the same protections, for small games without a language model."""
        games = replace(self.config.games, families=GAMES, partition="iid", per_client=1, amounts="equal")
        return replace(
            self.config, games=games, policy=replace(self.config.policy, backend="tactics"),
            codec=replace(self.config.codec, name="tactics"), out=str(self.folder / "run"),
        )  # fmt: skip

    @cached_property
    def trust(self) -> Trust:
        """What the devices' owners allow."""
        return from_table(Trust, proposal(self.small)) if self.settings is None else self.settings

    @cached_property
    def small_trust(self) -> Trust:
        """The same for a cohort of few devices, which `trust.least-cohort` would refuse before any other check."""
        if not self.secure:
            return self.trust
        return replace(self.trust, least_cohort=min(self.trust.least_cohort, self.plan.minimum))

    @cached_property
    def safeguards(self) -> RunSafeguards:
        return RunSafeguards(self.small)

    @cached_property
    def strategy(self) -> ExperienceStrategy:
        """The run's strategy, on a server that has nothing but safeguards."""
        server = SimpleNamespace(safeguards=self.safeguards)
        return build_strategy(self.config.strategy, server, self.config.seed)

    @property
    def secure(self) -> bool:
        """Whether vectors are masked."""
        return isinstance(self.strategy, SecureMean)

    @cached_property
    def spec(self) -> VectorSpec:
        """Specification of the devices' vectors."""
        encoder, codec = load_encoder("tactics"), self.small.codec
        families = tuple(spec.family for spec in specs_from_text(GAMES))
        return VectorSpec(
            encoder.name, encoder.dimension, encoder.vocabulary, "audit", families, HORIZON, codec.clipping_norm,
            codec.fisher_norm,
        )  # fmt: skip

    @property
    def adapter(self) -> Adapter:
        return {"weights": np.zeros(self.spec.dimension, np.float32)}

    @property
    def size(self) -> int:
        """Devices that the run asks for a sum, on average."""
        strategy = self.strategy
        return strategy.group_size if isinstance(strategy, SecureGroups) else self.safeguards.sample()

    @property
    def cohort(self) -> int:
        """Devices of an attacked cohort."""
        return max(3, min(self.size, LARGEST))

    @cached_property
    def plan(self) -> PrivacyPlan:
        """The plan of a secure sum over the attacked cohort."""
        if isinstance(self.strategy, SecureGroups):
            return self.strategy.plan(self.spec)
        return self.safeguards.plan(self.spec, self.cohort)

    @cached_property
    def graph(self) -> Graph:
        privacy = self.config.privacy
        return choose_graph(self.cohort, privacy.colluding, privacy.max_dropout)

    def server(self, name: str, devices: int, trust: Trust | None = None) -> HostileServer:
        """Return a server with new devices."""
        config = replace(self.small, clients=devices)
        return HostileServer(config, trust or self.small_trust, devices, self.folder / name)

    def request(self, server: HostileServer, plan: str = "", cycle: int = 1) -> PlayRequest:
        return server.request(self.spec, self.adapter, cycle, plan=plan)

    def round(
        self, server: HostileServer, request: PlayRequest, devices: Sequence[int], number: int = 1, threshold: int = 0
    ) -> HostileRound:
        """Return a round over devices with the run's terms, or another threshold."""
        graph = replace(self.graph, threshold=threshold or self.graph.threshold)
        terms = terms_of(request, self.plan, self.cohort, graph, number)
        return HostileRound(server, terms, self.plan, request, everybody(devices))


def outcome_of(server: HostileServer, recovered: bool) -> str:
    """Say what the server got: a vector, or refusals and which ones."""
    if recovered:
        return "a device's vector was recovered"
    return f"refused with {server.reasons}" if server.refused else "nothing beyond the sums that it may see"


def not_masked(name: str) -> ActiveAttack:
    """Return the result of an attack on secure sums where there are none."""
    return ActiveAttack(name, "does not apply: without a secure sum, the server sees each vector")
