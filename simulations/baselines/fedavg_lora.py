"""Federated averaging of LoRA weights, on the same games and by Flower's own strategies, which are used unchanged.

The rounds start from the same warm start as a federation of experience, and every round's average is measured on the
same held-out games. There is no teacher, no distillation and no gate.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import ClassVar

import flwr.serverapp.strategy as flower
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp.strategy import Strategy

from ...client.runtime import Runtime, SimulatedRuntime
from ...codecs.encoder import load_encoder
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.fleet.membership import keys_folder
from ...protocol.messages import records_bytes
from ...protocol.records.events import Listener, RunFinished
from ...server.app import prepare
from ...server.cycle.server import CycleServer
from ...server.fleet import make_fleet
from ...strategies.replies import failure
from ...strategies.rounds import Traffic
from ..batching import Batcher
from ..engines import check
from ..grid import InProcessGrid
from ..identity import server_identity
from ..inprocess import BatchingRuntime, games_ahead, made_ahead, whole_fleet
from .averaging_app import ARRAYS, CONFIG, EXAMPLES, adapter_of, arrays_of, asked_of, make_averaging_app
from .baseline import in_the_open

STRATEGIES = (
    "FedAvg",
    "FedAvgM",
    "FedAdam",
    "FedAdagrad",
    "FedYogi",
    "FedMedian",
    "FedTrimmedAvg",
    "Krum",
    "MultiKrum",
)
SERVER_OPTIMISERS = ("FedAdam", "FedAdagrad", "FedYogi")


@dataclass(frozen=True, kw_only=True)
class FedAvgLora:
    """Devices train and send LoRA weights.

    Parameters
    ----------
    strategy
        A strategy of Flower's, by the name of its class.
    epochs
        Passes of a device over its own turns in each round.
    learning_rate
        Of a device's AdamW; 0 for that of distillation.
    temperature
        Of the weights of turns: see `fedoel.simulations.baselines.local_training`.
    eta
        Server learning rate of FedAdam, FedAdagrad and FedYogi.
    num_malicious_nodes
        Of Krum and MultiKrum.
    """

    NAME: ClassVar[str] = "fedavg-lora"

    strategy: str = "FedAvg"
    epochs: int = 2
    learning_rate: float = 0.0
    temperature: float = 0.2
    eta: float = 0.01
    num_malicious_nodes: int = 0

    def check(self, config: RunConfig) -> RunConfig:
        """Refuse what has no adapter to train."""
        if self.strategy not in STRATEGIES:
            raise ConfigError(f"strategy={self.strategy}: Flower's {', '.join(STRATEGIES)} can be used")
        if self.epochs < 1 or self.learning_rate < 0 or self.temperature <= 0 or self.eta <= 0:
            raise ConfigError("fedavg-lora needs epochs of at least 1, and positive learning-rate, temperature and eta")
        if config.policy.backend not in ("torch", "tactics") or config.policy.decoding != "tree":
            raise ConfigError(
                "fedavg-lora trains on devices: it needs policy.backend 'torch' and policy.decoding 'tree'"
            )
        if load_encoder(config.codec.name).name != "tactics":
            raise ConfigError(f"fedavg-lora has no codec: leave codec.name at 'tactics', not {config.codec.name!r}")
        averaged = in_the_open(config, self)
        check(averaged)
        return averaged

    def run(self, config: RunConfig, listener: Listener | None = None, runtime: Runtime | None = None) -> None:
        """Run the rounds that are missing in this process."""
        config, inner, batcher = whole_fleet(config), runtime or SimulatedRuntime(), Batcher()
        app = make_averaging_app(BatchingRuntime(inner, batcher))
        grid = Orderly(app, config.clients, config.to_flat(), batcher)
        with server_identity(), made_ahead(games_ahead(config), inner.cache(config)):
            self._serve(grid, config, inner, listener)

    def _serve(self, grid: Orderly, config: RunConfig, runtime: Runtime, listener: Listener | None) -> None:
        """Let Flower's strategy turn the rounds."""
        _, server = prepare(config, runtime.cache(config), listener, "inprocess")
        make_fleet(keys_folder(config), config.clients)
        with server.run.log as log:
            server.start()
            rounds = AveragingRounds(server, self, grid)
            rounds.go_on()
            if rounds.before < config.cycles:
                self.flower(config.clients).start(
                    grid, arrays_of(server.state.version.adapter), config.cycles - rounds.before,
                    train_config=rounds.asked, evaluate_fn=rounds.measure,
                )  # fmt: skip
            log.emit(RunFinished(summary="summary.json"))

    def flower(self, clients: int) -> Strategy:
        """Build Flower's strategy: every node trains in every round, and the server measures."""
        kind = getattr(flower, self.strategy)
        own = {"eta": self.eta} if self.strategy in SERVER_OPTIMISERS else {}
        malicious = {"num_malicious_nodes": self.num_malicious_nodes} if self.strategy.endswith("Krum") else {}
        made: Strategy = kind(
            fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients, arrayrecord_key=ARRAYS,
            configrecord_key=CONFIG, weighted_by_key=EXAMPLES, **own, **malicious,
        )  # fmt: skip
        return made


class Orderly(InProcessGrid):
    """A grid that counts a round's replies, and returns them by node: Flower draws nodes in a random order."""

    sizes: Sequence[int] = ()
    failed: Mapping[str, int] = MappingProxyType({})

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push, pull and count; where nobody was asked, as in Flower's own evaluation, the counts stay."""
        replies = sorted(super().send_and_receive(messages), key=lambda reply: reply.metadata.src_node_id)
        if replies:
            self.sizes = [records_bytes(reply.content) for reply in replies if reply.has_content()]
            self.failed = Counter(failure(reply) for reply in replies if reply.has_error())
        return replies


@dataclass
class AveragingRounds:
    """What surrounds Flower's rounds: the request before each, and the measures after it."""

    server: CycleServer
    options: FedAvgLora
    grid: Orderly
    before: int = 0
    asked: ConfigRecord = field(default_factory=ConfigRecord)

    def go_on(self) -> None:
        """Take up what an interrupted run has left. The moments of a server optimiser start anew then."""
        while (adapter := self.server.adopted(self.before + 1)) is not None:
            self.before += 1
            self.server.adopt(self.before, adapter)

    def measure(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Measure a round's average, and prepare the next round; Flower's way to evaluate on the server."""
        cycle, metrics = self.before + server_round, None
        if server_round:
            self.server.collect(cycle, 1, None, self._traffic(arrays))
            self.server.adopt(cycle, adapter_of(arrays))
            metrics = MetricRecord({"win-rate": self.server.state.summary.cycles[-1].held_out.win_rate})
        if cycle < self.server.run.config.cycles:
            self._ask(cycle + 1)
        return metrics

    def _ask(self, cycle: int) -> None:
        options, config = self.options, self.server.run.config
        rate = options.learning_rate or config.distil.learning_rate
        asked = asked_of(self.server.request(cycle, 1), self.before)
        training = {"epochs": options.epochs, "learning-rate": rate, "temperature": options.temperature}
        for name, value in {**asked, **training}.items():
            self.asked[name] = value

    def _traffic(self, arrays: ArrayRecord) -> Traffic:
        """What a round has cost; weights go down as they come out of it."""
        sizes, down = self.grid.sizes, float(records_bytes(RecordDict({ARRAYS: arrays, CONFIG: self.asked})))
        return Traffic(sum(sizes) / max(1, len(sizes)), down, len(sizes), dict(self.grid.failed))
