"""The grid in one process behaves as Flower's does, where a strategy can tell."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from threading import Barrier, get_ident

import pytest
from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp

from fedoel.simulations.batching import Batcher
from fedoel.simulations.grid import FIRST_NODE_ID, InProcessGrid, server_identity

CLIENTS = 4


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


def make_app(barrier: Barrier | None = None) -> ClientApp:
    app = ClientApp()

    @app.train("work")
    def work(message: Message, context: Context) -> Message:
        if barrier:
            barrier.wait(10)
        client = int(context.node_config["partition-id"])
        asked = message.content.config_records["in"]
        if asked["fail"] == client:
            raise ValueError("refused")
        asked["fail"] = 99
        before = context.state.config_records.get("calls", ConfigRecord({"n": 0}))["n"]
        assert isinstance(before, int)
        calls = before + 1
        context.state["calls"] = ConfigRecord({"n": calls})
        out = ConfigRecord({"client": client, "calls": calls, "seed": context.run_config["seed"], "t": get_ident()})
        return Message(RecordDict({"out": out}), reply_to=message)

    return app


def messages(fail: int = -1, kind: str = "train.work", nodes: int = CLIENTS) -> list[Message]:
    records = RecordDict({"in": ConfigRecord({"fail": fail})})
    return [Message(records, dst_node_id=FIRST_NODE_ID + n, message_type=kind) for n in range(nodes)]


def test_every_node_answers_in_its_own_thread_at_the_same_time() -> None:
    grid = InProcessGrid(make_app(Barrier(CLIENTS)), CLIENTS, {"seed": 5})
    replies = list(grid.send_and_receive(messages()))
    assert [r.content["out"]["client"] for r in replies] == list(range(CLIENTS))
    assert {r.content["out"]["seed"] for r in replies} == {5}
    assert len({r.content["out"]["t"] for r in replies}) == CLIENTS


def test_contexts_last_and_contents_are_not_shared() -> None:
    grid = InProcessGrid(make_app(), CLIENTS, {"seed": 5})
    sent = messages()
    list(grid.send_and_receive(sent))
    assert sent[0].content["in"]["fail"] == -1
    replies = list(grid.send_and_receive(messages()))
    assert {r.content["out"]["calls"] for r in replies} == {2}


def test_an_exception_becomes_an_error_reply_of_that_node() -> None:
    grid = InProcessGrid(make_app(), CLIENTS, {"seed": 5})
    sent = messages(fail=2)
    by_message = {r.metadata.reply_to_message_id: r for r in grid.send_and_receive(sent)}
    failed = by_message[sent[2].metadata.message_id]
    assert failed.error.code == 2
    assert "refused" in str(failed.error.reason)
    assert failed.metadata.src_node_id == FIRST_NODE_ID + 2
    assert sum(r.has_content() for r in by_message.values()) == CLIENTS - 1


def test_unknown_actions_and_nodes_are_error_replies() -> None:
    grid = InProcessGrid(make_app(), 1, {})
    assert next(iter(grid.send_and_receive(messages(kind="train.other", nodes=1)))).error.code == 2
    codes = [r.error.code for r in grid.send_and_receive(messages(nodes=2)[1:])]
    assert codes == [5]


def test_replies_are_pulled_once() -> None:
    grid = InProcessGrid(make_app(), CLIENTS, {"seed": 5})
    names = list(grid.push_messages(messages()))
    assert len(list(grid.pull_messages([*names, "unknown"]))) == CLIENTS
    assert list(grid.pull_messages(names)) == []


@dataclass
class Watch(Batcher):
    admitted: list[int] = field(default_factory=list)
    left: list[int] = field(default_factory=list)

    def admit(self, clients: Sequence[int]) -> None:
        self.admitted += clients

    @contextmanager
    def playing(self, client: int) -> Iterator[None]:
        yield
        self.left.append(client)


def test_the_batcher_sees_who_works() -> None:
    watch = Watch()
    list(InProcessGrid(make_app(), CLIENTS, {"seed": 5}, watch).send_and_receive(messages(fail=1)))
    assert watch.admitted == list(range(CLIENTS))
    assert sorted(watch.left) == list(range(CLIENTS))


def test_the_identity_is_put_back() -> None:
    from flwr.supercore.task_identity import TaskIdentity

    with server_identity():
        assert TaskIdentity.run_id == 1
    assert TaskIdentity.run_id == 1  # the fixture's


@pytest.mark.parametrize("wave", [1, 2])
def test_a_client_that_exits_has_failed_and_an_interrupt_in_a_client_is_the_run_s(wave: int) -> None:
    """In a thread of its own, either would leave a message that nobody answers, and a run that waits for an hour."""
    raised = list[BaseException]()
    app = ClientApp()

    @app.train("work")
    def work(message: Message, context: Context) -> Message:
        raise raised[0]

    grid = InProcessGrid(app, 2, {}, wave=wave)
    asked = [Message(RecordDict(), dst_node_id=FIRST_NODE_ID + client, message_type="train.work") for client in (0, 1)]
    raised.append(SystemExit(0))
    assert [reply.has_error() for reply in grid.send_and_receive(asked)] == [True, True]
    raised[0] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        grid.push_messages(asked)
