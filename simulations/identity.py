"""Flower's task identity, which is needed to make a `Message` outside of a Flower process."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from flwr.supercore.task_identity import TaskIdentity

RUN_ID = 1
SERVER_NODE_ID = 1
_FIELDS = ("_run_id", "_node_id", "_task_id")


@contextmanager
def server_identity() -> Iterator[None]:
    """Take the identity of the ServerApp of run 1; Flower has no public interface for this."""
    before = {name: getattr(TaskIdentity, name) for name in _FIELDS}
    TaskIdentity.run_id, TaskIdentity.node_id, TaskIdentity.task_id = RUN_ID, SERVER_NODE_ID, 1
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(TaskIdentity, name, value)
