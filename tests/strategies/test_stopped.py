"""What a run does while the fleet is stopped: every node is told once, nobody is asked, and it goes on when lifted."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
from flwr.app import ConfigRecord, Error, Message, RecordDict

from fedoel.protocol.fleet.notice import ACTION, RECORD, Notice
from fedoel.simulations.grid import server_identity
from fedoel.strategies.stopped import AGAIN_SECONDS, is_stopped, wait_while_stopped

STOP, GO_ON = Notice(1, True, 0), Notice(2, False, 0)


@pytest.fixture(autouse=True)
def identity() -> Iterator[None]:
    with server_identity():
        yield


@dataclass
class Fleet:
    """A grid and the server's safeguards in one; `steps` says what happens at each look, the last of which lifts it."""

    steps: list[Callable[[Fleet], None]]
    nodes: set[int] = field(default_factory=set)
    wrong: set[int] = field(default_factory=set)
    told: list[int] = field(default_factory=list)
    acknowledged: set[int] = field(default_factory=set)
    notice: Notice | None = STOP
    now: float = 0.0
    replies: dict[str, Message] = field(default_factory=dict)

    def get_nodes(self) -> Iterable[Any]:
        return [SimpleNamespace(node_id=node) for node in sorted(self.nodes)]

    def push_messages(self, messages: Iterable[Message]) -> Iterable[str]:
        names = []
        for message in messages:
            node = message.metadata.dst_node_id
            assert message.metadata.message_type == ACTION
            name = f"{node}-{len(self.told)}"
            message.metadata.__dict__["_message_id"] = name
            number = dict(message.content.config_records[RECORD].items())["number"]
            self.replies[name] = (
                Message(Error(1, "an older release"), reply_to=message)
                if node in self.wrong
                else Message(RecordDict({RECORD: ConfigRecord({"number": number})}), reply_to=message)
            )
            self.told.append(node)
            names.append(name)
        return names

    def pull_messages(self, ids: Iterable[str]) -> Iterable[Message]:
        return [self.replies.pop(name) for name in list(ids) if name in self.replies]

    def acknowledge(self, notice: Notice, nodes: Collection[int]) -> None:
        assert notice == self.notice
        self.acknowledged |= set(nodes)

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        self.steps.pop(0)(self)

    def wait(self) -> None:
        wait_while_stopped(self, self, lambda: self.now, self.sleep)  # type: ignore[arg-type]


def lift(fleet: Fleet) -> None:
    fleet.notice = GO_ON


@pytest.mark.parametrize("notice", [None, GO_ON])
def test_a_fleet_that_is_not_stopped_is_told_nothing(notice: Notice | None) -> None:
    fleet = Fleet([], {1, 2}, notice=notice)
    fleet.wait()
    assert not fleet.told and not is_stopped(fleet)  # type: ignore[arg-type]


def test_nodes_are_told_once_as_they_connect_and_the_run_waits_until_it_is_lifted() -> None:
    fleet = Fleet([lambda fleet: None, lambda fleet: fleet.nodes.add(3), lambda fleet: None, lift], {1, 2})
    assert is_stopped(fleet)  # type: ignore[arg-type]
    fleet.wait()
    assert fleet.told == [1, 2, 3] and fleet.acknowledged == {1, 2, 3} and not fleet.steps


def test_a_node_that_answers_with_an_error_is_told_again_after_a_while() -> None:
    def late(fleet: Fleet) -> None:
        fleet.now += AGAIN_SECONDS
        fleet.wrong.clear()

    fleet = Fleet([lambda fleet: None, late, lambda fleet: None, lift], {1, 2}, wrong={2})
    fleet.wait()
    assert fleet.told == [1, 2, 2] and fleet.acknowledged == {1, 2}


def test_a_second_stop_is_told_to_everybody_again() -> None:
    def again(fleet: Fleet) -> None:
        fleet.notice = Notice(3, True, 0)

    fleet = Fleet([again, lift], {1, 2})
    fleet.wait()
    assert fleet.told == [1, 2, 1, 2]
