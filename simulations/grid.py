"""A Flower grid in one process: every client's real ClientApp, each in its own thread, no network and no daemons."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from threading import Thread
from typing import Any, Protocol

from flwr.app import Context, Error, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid

from ..protocol.config import Scalar
from ..protocol.messages import copy_of
from .identity import RUN_ID

CLIENT_APP_RAISED = 2
NODE_UNAVAILABLE = 5
FIRST_NODE_ID = 1000


class Watcher(Protocol):
    """Whoever must know which clients are at work."""

    def admit(self, clients: Sequence[int]) -> None: ...

    def playing(self, client: int) -> AbstractContextManager[None]: ...


class NobodyWatches:
    """The default watcher."""

    def admit(self, clients: Sequence[int]) -> None:
        """Take no notice."""

    def playing(self, client: int) -> AbstractContextManager[None]:
        """Take no notice."""
        return nullcontext()


class InProcessGrid(Grid):
    """Runs ClientApps in threads of this process; made for use within `identity.server_identity`.

    Parameters
    ----------
    app
        What every node runs.
    clients
        Number of nodes. Node ``i`` has partition id ``i`` and its own `Context`, kept over messages.
    run_config
        Flower's flat run config, given to every node.
    watcher
        Is told which clients are about to work and when each of them works.
    present
        The nodes that are there, all by default.
    """

    def __init__(
        self,
        app: ClientApp,
        clients: int,
        run_config: Mapping[str, Scalar],
        watcher: Watcher | None = None,
        present: Sequence[int] | None = None,
    ) -> None:
        self._app = app
        self._watcher = watcher or NobodyWatches()
        self._replies: dict[str, Message] = {}
        self._sent = 0
        self._contexts = {
            FIRST_NODE_ID + client: _context(client, clients, dict(run_config))
            for client in (range(clients) if present is None else present)
        }

    @property
    def run(self) -> Any:
        """Refuse: there is no SuperLink that would know about a run."""
        raise NotImplementedError("an in-process grid has no run: use the ServerApp's context instead")

    def set_run(self, run: Any) -> None:
        """Take no notice: there is one run."""

    def create_message(
        self, content: RecordDict, message_type: str, dst_node_id: int, group_id: str, ttl: float | None = None
    ) -> Message:
        """Make a message, the way that Flower deprecates."""
        return Message(content, dst_node_id=dst_node_id, message_type=message_type, group_id=group_id, ttl=ttl)

    def get_node_ids(self) -> Iterable[int]:
        """Return every node: all are there from the start."""
        return list(self._contexts)

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        """Run every message's ClientApp to its end, all of them side by side."""
        sent = list(messages)
        for message in sent:
            self._sent += 1
            # As Flower's own grid does, the id is put on the message that the caller holds.
            message.metadata.__dict__["_message_id"] = f"message-{self._sent}"
        self._run([message for message in sent if message.metadata.dst_node_id in self._contexts])
        for message in sent:
            if message.metadata.dst_node_id not in self._contexts:
                self._keep(Message(Error(NODE_UNAVAILABLE, "no such node"), reply_to=message))
        return [message.metadata.message_id for message in sent]

    def pull_messages(self, message_ids: Iterable[str]) -> Iterable[Message]:
        """Return the replies, each once."""
        return [self._replies.pop(name) for name in list(message_ids) if name in self._replies]

    def send_and_receive(self, messages: Iterable[Message], *, timeout: float | None = None) -> Iterable[Message]:
        """Push and pull. A thread cannot be stopped, so `timeout` is not used."""
        return self.pull_messages(self.push_messages(messages))

    def _run(self, messages: Sequence[Message]) -> None:
        """One thread a node; a node that has several messages answers them in turn."""
        by_node: dict[int, list[Message]] = {}
        for message in messages:
            by_node.setdefault(message.metadata.dst_node_id, []).append(message)
        self._watcher.admit([node - FIRST_NODE_ID for node in by_node])
        threads = [
            Thread(target=self._node, args=(node, mine), name=f"node-{node}", daemon=True)
            for node, mine in by_node.items()
        ]
        _join(threads)

    def _node(self, node: int, messages: Sequence[Message]) -> None:
        with self._watcher.playing(node - FIRST_NODE_ID):
            for message in messages:
                self._keep(self._answer(message, self._contexts[node]))

    def _answer(self, message: Message, context: Context) -> Message:
        """Call the ClientApp on copies, so that nodes share nothing, and make its exceptions error replies."""
        try:
            return _separate(self._app(_separate(message), context))
        except Exception as error:  # as Flower: text and all, which is why the ClientApp must say nothing in it
            return Message(Error(CLIENT_APP_RAISED, f"{type(error)}:<'{error}'>"), reply_to=message)

    def _keep(self, reply: Message) -> None:
        reply.metadata.__dict__["_message_id"] = f"reply-{reply.metadata.reply_to_message_id}"
        self._replies[reply.metadata.reply_to_message_id] = reply


def _context(client: int, clients: int, run_config: dict[str, Scalar]) -> Context:
    return Context(
        run_id=RUN_ID,
        node_id=FIRST_NODE_ID + client,
        node_config={"partition-id": client, "num-partitions": clients},
        state=RecordDict(),
        run_config=run_config,
    )


def _separate(message: Message) -> Message:
    """Copy a message so that the copy shares no content with it."""
    copied = copy.copy(message)
    if copied.has_content():
        copied.content = copy_of(message.content)
    return copied


def _join(threads: Sequence[Thread]) -> None:
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
