"""A Flower grid in one process: each client's ClientApp runs in its own thread, without network or other processes.

Clients run in waves of bounded size, so that a large fleet takes no more threads and memory at a time than a small one.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from threading import Thread
from typing import Any

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid
from flwr.supercore.task_identity import TaskIdentity

from ..protocol.config import Scalar
from ..protocol.messages import copy_of
from .batching import Batcher

RUN_ID, SERVER_NODE_ID, FIRST_NODE_ID = 1, 1, 1000
CLIENT_APP_RAISED, NODE_UNAVAILABLE = 2, 5  # Flower's error codes
WAVE = 128  # clients that run at a time

Node = tuple[Context, Sequence[Message]]
"""A node's context, and the messages to it."""


@contextmanager
def server_identity() -> Iterator[None]:
    """Take the identity of the ServerApp of run 1, which making a `Message` needs; Flower has no public interface."""
    before = {name: getattr(TaskIdentity, name) for name in ("_run_id", "_node_id", "_task_id")}
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER_NODE_ID, 1
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)


class InProcessGrid(Grid):
    """Runs ClientApps in threads of this process; used within `server_identity`.

    Parameters
    ----------
    app
        The ClientApp of all nodes.
    clients
        Number of clients. Client ``i`` has partition id ``i`` and its own `Context`, which persists over messages.
    run_config
        Flower's flat run config, given to every node.
    batcher
        Is informed which clients run; by default one that no policy uses.
    present
        The clients that have a node, by default all.
    wave
        Number of clients that run at a time. One that runs alone runs in the caller's thread.
    """

    def __init__(
        self,
        app: Callable[[Message, Context], Message],
        clients: int,
        run_config: Mapping[str, Scalar],
        batcher: Batcher | None = None,
        present: Sequence[int] | None = None,
        wave: int = WAVE,
    ) -> None:
        self._app, self._wave = app, wave
        self._batcher = batcher or Batcher()
        self._replies: dict[str, Message] = {}
        self._sent = 0
        run_config = dict(run_config)  # one for all: no client changes it
        self._contexts = {
            FIRST_NODE_ID + client: Context(
                run_id=RUN_ID, node_id=FIRST_NODE_ID + client, state=RecordDict(), run_config=run_config,
                node_config={"partition-id": client, "num-partitions": clients},
            )
            for client in (range(clients) if present is None else present)
        }  # fmt: skip

    @property
    def run(self) -> Any:
        """Raise: there is no SuperLink that knows the run."""
        raise NotImplementedError("an in-process grid has no run: use the ServerApp's context instead")

    def set_run(self, run: Any) -> None:
        """Do nothing: there is only one run."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message; deprecated in Flower, but part of its interface."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return the ids of all nodes."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run the ClientApp on every message, a wave of nodes at a time, and wait for all."""
        sent = list(messages)
        for message in sent:
            self._sent += 1
            # As in Flower's own grid, the id is set on the caller's message object.
            message.metadata.__dict__["_message_id"] = f"message-{self._sent}"
        by_node: dict[int, list[Message]] = {}
        for message in sent:
            by_node.setdefault(message.metadata.dst_node_id, []).append(message)
        self._run([(node, messages) for node, messages in by_node.items() if node in self._contexts])
        for message in sent:
            if message.metadata.dst_node_id not in self._contexts:
                self._keep(Message(Error(NODE_UNAVAILABLE, "no such node"), reply_to=message))
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies to messages; each reply is delivered once."""
        return [self._replies.pop(key) for key in list(message_ids) if key in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull; `timeout` is not used, because a thread cannot be stopped."""
        return self.pull_messages(self.push_messages(messages))

    def answered(self, nodes: Sequence[Node]) -> list[tuple[Context, list[Message]]]:
        """Run nodes whose contexts come with their messages; return the contexts, and each node's replies."""
        self._contexts = {context.node_id: context for context, _ in nodes}
        self._run([(context.node_id, messages) for context, messages in nodes])
        return [(context, list(self.pull_messages(m.metadata.message_id for m in sent))) for context, sent in nodes]

    def _run(self, nodes: Sequence[tuple[int, Sequence[Message]]]) -> None:
        """Run nodes, one thread each; a node handles several messages in sequence."""
        for first in range(0, len(nodes), self._wave):
            self._run_wave(nodes[first : first + self._wave])

    def _run_wave(self, nodes: Sequence[tuple[int, Sequence[Message]]]) -> None:
        self._batcher.admit([node - FIRST_NODE_ID for node, _ in nodes])
        if len(nodes) == 1:
            self._node(*nodes[0])
            return
        interrupts = list[BaseException]()

        def node(number: int, messages: Sequence[Message]) -> None:
            try:
                self._node(number, messages)
            except BaseException as interrupt:  # which would end this thread only, and leave its message unanswered
                interrupts.append(interrupt)

        threads = [
            Thread(target=node, args=(number, messages), name=f"node-{number}", daemon=True)
            for number, messages in nodes
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if interrupts:
            raise interrupts[0]

    def _node(self, node: int, messages: Sequence[Message]) -> None:
        with self._batcher.playing(node - FIRST_NODE_ID):
            for message in messages:
                self._keep(self._answer(message, self._contexts[node]))

    def _answer(self, message: Message, context: Context) -> Message:
        """Call the ClientApp on a copy, so that nodes share no data, and turn exceptions into error replies."""
        try:
            return _separate(self._app(_separate(message), context))
        except (Exception, SystemExit) as error:  # as Flower does, with the text, which must hold no private data
            return Message(Error(CLIENT_APP_RAISED, f"{type(error)}:<'{error}'>"), reply_to=message)

    def _keep(self, reply: Message) -> None:
        reply.metadata.__dict__["_message_id"] = f"reply-{reply.metadata.reply_to_message_id}"
        self._replies[reply.metadata.reply_to_message_id] = reply


def _separate(message: Message) -> Message:
    """Copy a message together with its content."""
    copied = copy.copy(message)
    if copied.has_content():
        copied.content = copy_of(message.content)
    return copied
