"""The strategy that a run follows: ask a cohort for experience vectors, aggregate them, hand the result on.

One of Flower's rounds is one exchange with the cohort. A cycle has one of them, or several: then each asks its own part
of the cohort, which plays with the context that the exchanges before it gave.

What the server does in a cycle is injected as a `ServerSide`, so what is left here is federated logic. A custom
strategy is a subclass with one method, `aggregate`.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from logging import INFO, WARNING, getLogger
from statistics import fmean

from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import Result, Strategy

from ..protocol.config import REPLY_SECONDS
from ..protocol.errors import ConfigError, FedoelError, VectorError
from ..protocol.experience import Aggregate, Contribution, VectorSpec, total
from ..protocol.messages import ACTION, PlayRequest, records_bytes, request_to_records, with_notice
from ..protocol.options import Option, options_of
from ..protocol.trials import ACTION as TRIAL
from .cohort import sample, split, wait_for_nodes
from .delivery import RetryWindow, message_to, named, send_and_receive
from .replies import OUT, SortedReplies, failure, sort_replies
from .server_side import ServerSide, Traffic
from .stopped import wait_while_stopped

log = getLogger("flwr").log
UNUSABLE = "aggregate refused"
TRIALS = 1_000_000  # added to the cycle in the seed of the parts of trials, which are others than those of exchanges


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request under way: what was asked, and the messages that asked it."""

    request: PlayRequest
    messages: Sequence[Message]
    downlink_bytes: float

    @property
    def asked(self) -> Mapping[str, int]:
        """Node by message id; Flower gives messages their ids when it sends them."""
        return {message.metadata.message_id: message.metadata.dst_node_id for message in self.messages}


class ExperienceStrategy(Strategy):
    """Collect experience vectors and turn them into one aggregate.

    A strategy's own options are what its constructor takes by keyword only, each with a default; see `options`.
    `mechanisms` are the values of `privacy.mechanism` that it works with; `carries_words` says whether its aggregates
    hold what a codec's contributions say in words; `needs_games` whether the server must have public games;
    `least_of_trial` is the fewest devices that a part of a trial is made of, where there are so many; `current` is the
    cycle and the exchange whose contributions are aggregated.

    Parameters
    ----------
    server
        What is done on the server, before, between and after the exchanges.
    exchanges
        Exchanges in a cycle. A node takes part in one of them.
    fraction_train
        Share of the available nodes that is asked in each cycle; at least one is.
    min_available_nodes
        Nodes to wait for before a cycle starts.
    seed
        Picks the cohorts.
    timeout
        Seconds to wait for replies; those that come later are not used.
    node_timeout
        Seconds to wait for `min_available_nodes`.
    patience
        Seconds for which to wait for nodes, and to ask again, while too few devices are ready to play.
    trial_parts
        Parts of a cohort that are asked for a trial one after the other.
    """

    mechanisms: frozenset[str] = frozenset({"none"})
    carries_words: bool = False
    needs_games: bool = False
    least_of_trial: int = 1

    def __init__(
        self,
        server: ServerSide,
        *,
        exchanges: int = 1,
        fraction_train: float = 1.0,
        min_available_nodes: int = 2,
        seed: int = 0,
        timeout: float = REPLY_SECONDS,
        node_timeout: float = 120.0,
        patience: float = 0.0,
        trial_parts: int = 1,
    ) -> None:
        if not 0 < fraction_train <= 1 or min_available_nodes < 1:
            raise ConfigError(
                f"strategy.fraction-train must be in (0, 1] and min-available-nodes at least 1, "
                f"not {fraction_train} and {min_available_nodes}"
            )
        if exchanges < 1:
            raise ConfigError(f"strategy.exchanges must be at least 1, not {exchanges}")
        self.server = server
        self.exchanges = exchanges
        self.fraction_train = fraction_train
        self.min_available_nodes = min_available_nodes
        self.seed = seed
        self.timeout = timeout
        self.node_timeout = max(node_timeout, patience)
        self.patience = patience
        self.current = (0, 0)
        self.trial_parts = trial_parts
        self._exchange: Exchange | None = None
        self._trial: tuple[PlayRequest, int] | None = None
        self._answer: Aggregate | None = None
        self._cohort: tuple[int, list[list[int]]] = (0, [])

    @abstractmethod
    def aggregate(self, contributions: Sequence[Contribution]) -> Aggregate:
        """Turn what arrived into one aggregate: the method to override.

        Parameters
        ----------
        contributions
            At least one, checked, in an order that does not depend on who answered first.

        Returns
        -------
        Aggregate
            One vector on the scale of a sum over `cohort` clients.

        Raises
        ------
        VectorError
            If these contributions should not be used; the cycle then goes on without an aggregate.
        """

    @classmethod
    def options(cls) -> Mapping[str, Option]:
        """What a run can tell this strategy by `strategy.options`: what its constructors take by keyword only."""
        return options_of(cls, ExperienceStrategy)

    def check(self, spec: VectorSpec) -> None:
        """Refuse a run that this strategy cannot go through with, before any work starts.

        Parameters
        ----------
        spec
            What devices will be asked for.

        Raises
        ------
        ConfigError
            Saying what to change.
        """

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> list[Message]:
        """Ask a part of the cohort to play. What it is sent comes from the server, not from `arrays`."""
        cycle, exchange = self.place(server_round)
        nodes = self.nodes(grid)
        cohort = self.draw(self.server.reached(nodes), cycle, exchange)
        request = self.server.request(cycle, exchange)
        log(INFO, "configure_train: asked %d of %d nodes", len(cohort), len(nodes))
        return self._ask(request, cohort)

    def nodes(self, grid: Grid) -> list[int]:
        """Wait until the fleet is not stopped and enough nodes are there, and return the ids of all that are."""
        wait_while_stopped(grid, self.server.safeguards)
        return wait_for_nodes(grid, self.min_available_nodes, self.node_timeout)

    def _ask(self, request: PlayRequest, nodes: Iterable[int], action: str = ACTION) -> list[Message]:
        """Make the messages of an exchange; Flower sends none twice, so that another try needs new ones."""
        safeguards = self.server.safeguards
        records = with_notice(request_to_records(replace(request, log=safeguards.log)), safeguards.notice)
        messages = [message_to(node, action, records, safeguards.deployed) for node in nodes]
        self._exchange = Exchange(request, messages, float(records_bytes(records)))
        return messages

    def aggregate_train(self, server_round: int, replies: Iterable[Message]) -> tuple[None, MetricRecord]:
        """Check and aggregate the replies, and hand the aggregate to the server."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            raise FedoelError(f"round {server_round} was not asked for: call configure_train first")
        spec, plan, replies = exchange.request.spec, exchange.request.plan, list(replies)
        self._name_silent("exchange", exchange, replies)
        arrived = sort_replies(replies, exchange.asked, spec, self.most_games, plan)
        return None, self.conclude(server_round, arrived, exchange.downlink_bytes)

    def _name_silent(self, where: str, exchange: Exchange, replies: Iterable[Message]) -> None:
        """Log which nodes have not replied in time."""
        silent = dict(exchange.asked)
        for reply in replies:
            silent.pop(reply.metadata.reply_to_message_id, None)
        if silent:
            log(WARNING, "%s: no reply within %.0f s: %s", where, self.timeout, named(silent.values()))

    @property
    def most_games(self) -> int:
        """Most games that a contribution is of."""
        return self.server.most_games

    def conclude(self, server_round: int, arrived: SortedReplies, downlink_bytes: float) -> MetricRecord:
        """Aggregate what arrived in an exchange, and hand it on."""
        self.current = self.place(server_round)
        aggregate, refused = None, dict(arrived.refused)
        try:
            aggregate = self._checked(self.aggregate(arrived.contributions)) if arrived.contributions else None
        except VectorError:
            refused[UNUSABLE] = len(arrived.contributions)
        for reason, count in refused.items():
            log(WARNING, "aggregate_train: %d refused: %s", count, reason)
        accepted = len(arrived.contributions) if aggregate else 0
        self.hand_on(server_round, aggregate, Traffic(fmean(arrived.uplink or [0]), downlink_bytes, accepted, refused))
        return MetricRecord({"accepted": accepted, "refused": sum(refused.values())})

    def _checked(self, aggregate: object) -> Aggregate:
        """Return what a strategy made of the vectors, if that is an aggregate: most strategies are plug-ins."""
        if not isinstance(aggregate, Aggregate):
            raise FedoelError(
                f"the strategy {type(self).__name__} makes {type(aggregate).__name__} of the vectors, and has to make "
                "an Aggregate, or to raise VectorError if there is none: try `fedoel check-plugin`"
            )
        return aggregate

    def hand_on(self, server_round: int, aggregate: Aggregate | None, traffic: Traffic) -> None:
        """Give the server what an exchange brought, after the server's optimiser."""
        cycle, exchange = self.place(server_round)
        if aggregate is not None:
            aggregate = self.optimise(aggregate, cycle, exchange)
            if not aggregate.finite:
                log(WARNING, "exchange: the aggregate holds numbers that are not finite, and is not used")
                refused = {**traffic.refused, UNUSABLE: traffic.accepted}
                aggregate, traffic = None, replace(traffic, accepted=0, refused=refused)
        self.server.collect(cycle, exchange, aggregate, traffic)

    def optimise(self, aggregate: Aggregate, cycle: int, exchange: int) -> Aggregate:
        """Make a server optimiser's step out of an aggregate; here there is no such optimiser."""
        return aggregate

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> Iterable[Message]:
        """Ask a part of the fleet for the trial under way; nobody if there is none."""
        if self._trial is None:
            return []
        request, part = self._trial
        nodes = self.nodes(grid)
        return self._ask(request, self.draw_trial(self.server.reached(nodes), request, part), TRIAL)

    def aggregate_evaluate(self, server_round: int, replies: Iterable[Message]) -> MetricRecord | None:
        """Add up the answers to the trial under way, if there is one."""
        exchange, self._exchange = self._exchange, None
        if exchange is None:
            return None
        replies = list(replies)
        self._name_silent("trial", exchange, replies)
        # The answer to a trial counts nothing.
        arrived = sort_replies(replies, exchange.asked, exchange.request.spec, games=0, plan=exchange.request.plan)
        for reason, count in arrived.refused.items():
            log(WARNING, "aggregate_evaluate: %d refused: %s", count, reason)
        self._answer = self._usable_trial(arrived.contributions, server_round)
        accepted = len(arrived.contributions) if self._answer else 0
        refused = sum(arrived.refused.values()) + len(arrived.contributions) - accepted
        return MetricRecord({"accepted": accepted, "refused": refused})

    def _usable_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate | None:
        """Return the sum of the answers to a trial; None if there are none, or the strategy has no use for them."""
        try:
            answer = self._checked(self.aggregate_trial(contributions, cycle)) if contributions else None
        except VectorError as error:
            log(WARNING, "trial: the strategy refuses the answers: %s", error)
            return None
        if answer is not None and not answer.finite:
            log(WARNING, "trial: the sum of the answers holds numbers that are not finite, and is not used")
            return None
        return answer

    def trial(self, grid: Grid, request: PlayRequest, part: int) -> Aggregate | None:
        """Ask a part of the fleet for a trial, and return the sum of its answers; None if nobody answers."""
        self._trial, self._answer = (request, part), None
        try:
            messages = list(self.configure_evaluate(request.cycle, ArrayRecord(), ConfigRecord(), grid))
            replies = send_and_receive(grid, messages, self.timeout) if messages else []
            self.aggregate_evaluate(request.cycle, replies)
        finally:
            self._trial = None
        return self._answer

    def aggregate_trial(self, contributions: Sequence[Contribution], cycle: int) -> Aggregate:
        """Turn at least one answer to a cycle's trial into their sum; clipping bounds what one answer can do."""
        return Aggregate(total(contribution.vector for contribution in contributions), len(contributions))

    def draw_trial(self, nodes: list[int], request: PlayRequest, part: int) -> list[int]:
        """Draw the devices of a part of a trial, the same ones for all trials of a cycle.

        Where devices are missing, or a version has not reached them, there are fewer parts rather than smaller ones.
        """
        cohort = sample(nodes, self.fraction_train, self.seed, request.cycle)
        parts = min(self.trial_parts, max(1, len(cohort) // self.least_of_trial))
        return split(cohort, parts, self.seed, TRIALS + request.cycle)[part - 1] if part <= parts else []

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord | None = None,
        num_rounds: int = 3,
        timeout: float | None = None,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Callable[[int, ArrayRecord], MetricRecord | None] | None = None,
    ) -> Result:
        """Run the cycles that are not on disk yet.

        Parameters
        ----------
        num_rounds
            Cycles; each of them is `exchanges` of Flower's rounds.
        timeout
            Seconds to wait for replies, instead of the strategy's.
        initial_arrays, train_config, evaluate_config, evaluate_fn
            Part of Flower's interface and not used: adapters and evaluation are the server's.
        """
        log(INFO, "Starting %s strategy:", type(self).__name__)
        self.summary()
        self.server.start()
        result = Result()
        for cycle in range(1, num_rounds + 1):
            log(INFO, "[CYCLE %s/%s]", cycle, num_rounds)
            for exchange in range(1, self.exchanges + 1):
                if self.server.collected(cycle, exchange):
                    continue
                server_round = (cycle - 1) * self.exchanges + exchange
                wait = self.timeout if timeout is None else timeout
                result.train_metrics_clientapp[server_round] = self.exchange(grid, server_round, wait)
            self.server.consolidate(cycle, partial(self.trial, grid))
        return result

    def exchange(self, grid: Grid, server_round: int, timeout: float) -> MetricRecord:
        """Ask a part of the cohort, wait, and hand on what came: one of Flower's rounds."""
        messages = self.configure_train(server_round, ArrayRecord(), ConfigRecord(), grid)
        # All nodes of this part may have left; Flower rejects an empty list of messages.
        replies = send_and_receive(grid, messages, timeout) if messages else []
        patience = RetryWindow(self.patience)
        while messages and _not_ready(replies) and patience.wait():
            messages = self._ask_again(grid)
            replies = send_and_receive(grid, messages, timeout)
        return self.aggregate_train(server_round, replies)[1]

    def _ask_again(self, grid: Grid) -> list[Message]:
        """Make the messages of the exchange under way anew, once the fleet is not stopped."""
        wait_while_stopped(grid, self.server.safeguards)
        if self._exchange is None:
            raise FedoelError("nothing was asked for: call configure_train first")
        return self._ask(self._exchange.request, self._exchange.asked.values())

    def summary(self) -> None:
        """Log the settings of the strategy: its own options, then those that all have."""
        lines = [f"{option.name}: {getattr(self, name, option.default)}" for name, option in self.options().items()]
        if lines:
            log(INFO, "\t├──> %s settings:", type(self).__name__)
        for number, line in enumerate(lines, start=1):
            log(INFO, "\t│\t%s %s", "└──" if number == len(lines) else "├──", line)
        log(INFO, "\t├──> Sampling:")
        log(INFO, "\t│\t├── Exchanges in a cycle: %d", self.exchanges)
        log(INFO, "\t│\t├── Fraction: train (%.2f)", self.fraction_train)
        log(INFO, "\t│\t├── Minimum available nodes: %d", self.min_available_nodes)
        log(INFO, "\t│\t└── Seed: %d", self.seed)
        log(INFO, "\t└──> Waiting:")
        log(INFO, "\t\t├── For nodes: %.0f s", self.node_timeout)
        log(INFO, "\t\t├── For replies: %.0f s", self.timeout)
        log(INFO, "\t\t└── For devices that are not ready: %.0f s", self.patience)

    def place(self, server_round: int) -> tuple[int, int]:
        """Cycle and exchange of a round, both from 1."""
        cycle, exchange = divmod(server_round - 1, self.exchanges)
        return cycle + 1, exchange + 1

    def draw(self, nodes: list[int], cycle: int, exchange: int) -> list[int]:
        """Draw the devices of an exchange.

        A cohort is split once a cycle, so that nodes that come or go move nobody to another exchange.
        """
        if self._cohort[0] != cycle:
            cohort = sample(nodes, self.fraction_train, self.seed, cycle)
            self._cohort = cycle, split(cohort, self.exchanges, self.seed, cycle)
        present = set(nodes)
        return [node for node in self._cohort[1][exchange - 1] if node in present]


def _not_ready(replies: Sequence[Message]) -> bool:
    """Whether nobody has answered, and somebody may do so when asked again."""
    reasons = [failure(reply) for reply in replies if reply.has_error()]
    return len(reasons) == len(replies) and (not reasons or any(reason != OUT for reason in reasons))
