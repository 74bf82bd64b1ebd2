"""Federated averaging of LoRA weights on the same games, with Flower's own strategies, unchanged.

The first round starts from the same warm start as a federation of experience, and the average of every round is
evaluated on the same held-out games. There is no teacher, no distillation and no gate.
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
from ...strategies.server_side import Traffic
from ..batching import Batcher
from ..grid import InProcessGrid, server_identity
from ..inprocess import check, games_ahead, made_ahead, whole_fleet
from ..wrapping import WrappingRuntime
from .averaging_app import ARRAYS, CONFIG, EXAMPLES, adapter_of, arrays_of, make_averaging_app, round_config
from .baseline import in_the_open

STRATEGIES: Mapping[str, Sequence[str]] = MappingProxyType({
    "FedAvg": (), "FedAvgM": (), "FedAdam": ("eta",), "FedAdagrad": ("eta",), "FedYogi": ("eta",), "FedMedian": (),
    "FedTrimmedAvg": (), "Krum": ("num_malicious_nodes",), "MultiKrum": ("num_malicious_nodes",),
})  # fmt: skip
"""Class names of Flower's strategies, and the options that each takes from `FedAvgLora`."""


@dataclass(frozen=True, kw_only=True)
class FedAvgLora:
    """Devices train and send LoRA weights.

    Parameters
    ----------
    strategy
        Class name of one of Flower's strategies.
    epochs
        Passes of a device over its turns in each round.
    learning_rate
        Learning rate of AdamW on devices; 0 means that of distillation.
    temperature
        Temperature of the weights of turns: see `fedoel.simulations.baselines.averaging_app`.
    eta
        Server learning rate of FedAdam, FedAdagrad and FedYogi.
    num_malicious_nodes
        Option of Krum and MultiKrum.
    """

    NAME: ClassVar[str] = "fedavg-lora"

    strategy: str = "FedAvg"
    epochs: int = 2
    learning_rate: float = 0.0
    temperature: float = 0.2
    eta: float = 0.01
    num_malicious_nodes: int = 0

    def check(self, config: RunConfig) -> RunConfig:
        """Check the options, and refuse a configuration without an adapter to train on devices."""
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
        """Run the unfinished rounds in this process."""
        config, inner, batcher = whole_fleet(config), runtime or SimulatedRuntime(), Batcher()
        app = make_averaging_app(WrappingRuntime(inner, batcher.wrap))
        # One wave: all clients train the same model in place, when all have played.
        grid = OrderedGrid(app, config.clients, config.to_flat(), batcher, wave=config.clients)
        with server_identity(), made_ahead(games_ahead(config), inner.cache(config)):
            self._serve(grid, config, inner, listener)

    def _serve(self, grid: OrderedGrid, config: RunConfig, runtime: Runtime, listener: Listener | None) -> None:
        """Run Flower's strategy between the start and the evaluation of a run."""
        _, server = prepare(config, runtime.cache(config), listener, "inprocess")
        make_fleet(keys_folder(config), config.clients)
        with server.run.log as log:
            server.start()
            rounds = AveragingRounds(server, self, grid)
            rounds.resume()
            if rounds.before < config.cycles:
                self.flower(config.clients).start(
                    grid, arrays_of(server.state.version.adapter), config.cycles - rounds.before,
                    train_config=rounds.train_config, evaluate_fn=rounds.measure,
                )  # fmt: skip
            log.emit(RunFinished(summary="summary.json"))

    def flower(self, clients: int) -> Strategy:
        """Build Flower's strategy: every node trains in every round, and evaluation is on the server."""
        options = {name: getattr(self, name) for name in STRATEGIES[self.strategy]}
        strategy: Strategy = getattr(flower, self.strategy)(
            fraction_evaluate=0.0, min_train_nodes=clients, min_available_nodes=clients, arrayrecord_key=ARRAYS,
            configrecord_key=CONFIG, weighted_by_key=EXAMPLES, **options,
        )  # fmt: skip
        return strategy


class OrderedGrid(InProcessGrid):
    """A grid that records sizes and failures of a round's replies, and sorts them by node for reproducibility."""

    sizes: Sequence[int] = ()
    failed: Mapping[str, int] = MappingProxyType({})

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull; a call without messages, as in Flower's evaluation, leaves the records as they are."""
        replies = sorted(super().send_and_receive(messages), key=lambda reply: reply.metadata.src_node_id)
        if replies:
            self.sizes = [records_bytes(reply.content) for reply in replies if reply.has_content()]
            self.failed = Counter(failure(reply) for reply in replies if reply.has_error())
        return replies


@dataclass
class AveragingRounds:
    """Prepares the configuration before each of Flower's rounds, and evaluates the average after it.

    `before` is the number of cycles finished before Flower's first round.
    """

    server: CycleServer
    options: FedAvgLora
    grid: OrderedGrid
    before: int = 0
    train_config: ConfigRecord = field(default_factory=ConfigRecord)

    def resume(self) -> None:
        """Load the finished cycles of an interrupted run; the state of a server optimiser is not restored."""
        while (adapter := self.server.adopted(self.before + 1)) is not None:
            self.before += 1
            self.server.adopt(self.before, adapter)

    def measure(self, server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
        """Evaluate a round's average, and prepare the next round; Flower's `evaluate_fn`."""
        cycle, metrics = self.before + server_round, None
        if server_round:
            self.server.collect(cycle, 1, None, self._traffic(arrays))
            self.server.adopt(cycle, adapter_of(arrays))
            metrics = MetricRecord({"win-rate": self.server.state.record.held_out.win_rate})
        if cycle < self.server.run.config.cycles:
            self._prepare(cycle + 1)
        return metrics

    def _prepare(self, cycle: int) -> None:
        options, config = self.options, self.server.run.config
        rate = options.learning_rate or config.distil.learning_rate
        request = round_config(self.server.request(cycle, 1), self.before)
        training = {"epochs": options.epochs, "learning-rate": rate, "temperature": options.temperature}
        self.train_config.update({**request, **training})

    def _traffic(self, arrays: ArrayRecord) -> Traffic:
        """Return a round's traffic; the downlink has the same arrays as the aggregate."""
        sizes, down = self.grid.sizes, float(records_bytes(RecordDict({ARRAYS: arrays, CONFIG: self.train_config})))
        return Traffic(sum(sizes) / max(1, len(sizes)), down, len(sizes), dict(self.grid.failed))
