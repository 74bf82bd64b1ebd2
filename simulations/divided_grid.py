"""The grid of a simulation with several processes: each round of messages is divided among them by clients.

The shares are the same with any number of processes, and so are the replies: what is batched together is of one share,
and each share starts without cached scenes. The last bits of a matrix product depend on the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Self

from flwr.app import Context, Message
from flwr.clientapp import ClientApp

from ..client.runtime import Runtime, forget_policies
from ..protocol.config import PolicyConfig, RunConfig
from .batching import Batcher
from .grid import WAVE, InProcessGrid, Node
from .workers import Workers, divided
from .wrapping import WrappingRuntime

ALONE = ("tactics",)  # backends that answer a client as fast alone as together with others
ALONE_CLIENTS = 64  # clients of a share that play one after the other
TURN_TOKENS = 256  # about what a turn has: tokens of its commands, and now and then a new scene


def games_of_share(policy: PolicyConfig) -> int:
    """Return how many games to play together, so that a turn of all of them is about one batch of the model."""
    return max(1, policy.batch_tokens // TURN_TOKENS)


@dataclass(frozen=True, slots=True)
class Devices:
    """The simulated devices of a share; any process can run any of them, because their state comes with the messages.

    Parameters
    ----------
    make
        Builds their ClientApp.
    runtime
        Where they run, all of them.
    clients
        How many are in a share.
    together
        Whether they play at the same time, and a policy answers all of them in one batch.
    """

    make: Callable[[Runtime], ClientApp]
    runtime: Runtime
    clients: int
    together: bool

    @classmethod
    def of(cls, config: RunConfig, make: Callable[[Runtime], ClientApp], runtime: Runtime) -> Self:
        """Return the devices of a run."""
        if config.policy.backend in ALONE:
            return cls(make, runtime, ALONE_CLIENTS, together=False)
        clients = games_of_share(config.policy) // config.games.per_client
        return cls(make, runtime, min(max(clients, 1), WAVE), together=True)

    def answer(self, share: Sequence[Node]) -> list[tuple[Context, list[Message]]]:
        """Answer the messages to a share of the devices; return their contexts as they are then, and the replies."""
        batcher = Batcher()
        forget_policies()
        runtime = WrappingRuntime(self.runtime, batcher.wrap) if self.together else self.runtime
        wave = len(share) if self.together else 1
        return InProcessGrid(self.make(runtime), 0, {}, batcher, wave=wave).answered(share)


class DividedGrid(InProcessGrid):
    """A grid whose nodes run in several processes; all contexts are kept in this one.

    Parameters
    ----------
    devices
        What runs the nodes.
    present
        The clients that have a node, by default all.
    """

    def __init__(
        self, devices: Devices, config: RunConfig, workers: Workers, present: Sequence[int] | None = None
    ) -> None:
        super().__init__(_never, config.clients, config.to_flat(), present=present)
        self._devices, self._workers = devices, workers

    def _run(self, nodes: Sequence[tuple[int, Sequence[Message]]]) -> None:
        shares = [
            [(self._contexts[node], messages) for node, messages in share]
            for share in divided(nodes, self._devices.clients)
        ]
        for answered in self._workers.map(self._devices.answer, shares):
            for context, replies in answered:
                self._contexts[context.node_id] = context
                self._replies |= {reply.metadata.reply_to_message_id: reply for reply in replies}


def _never(message: Message, context: Context) -> Message:
    """Stand for the app of a grid whose devices are elsewhere."""
    raise NotImplementedError
