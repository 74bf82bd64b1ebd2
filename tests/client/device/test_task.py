"""A device answers with the app that is installed on it, whatever app a run brings."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import Any

import pytest
from flwr.app import Context, Error, Message, RecordDict
from flwr.supercore.fab import Fab
from flwr.supercore.runtime import RuntimeHttpClient
from flwr.supernode.runtime import run_clientapp

from fedoel.client.app import app
from fedoel.client.device import task
from fedoel.client.device.start import TASK
from fedoel.protocol.host.forked import FORKS
from fedoel.simulations.grid import server_identity


class Run:
    """A run of an app that is not this device's."""

    run_id, fab_id, fab_version = 1, "stranger/app", "6.6.6"


class Client:
    """Stands for the SuperNode."""

    def __getattr__(self, name: str) -> Any:
        return lambda *_, **__: None


def test_the_app_that_a_run_brings_is_neither_unpacked_nor_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Flower's process would unpack the archive, which is none, and fail to load the app."""
    with server_identity():
        message = Message(RecordDict(), dst_node_id=1, message_type="train.experience")
        context = Context(1, 1, {"partition-id": 0, "num-partitions": 1}, RecordDict(), {})
        fab = Fab("0" * 64, b"code of somebody else", {})
        replies: list[Message] = []

        def pushed(client: Any, reply: Message, context: Context) -> None:
            replies.append(reply)

        for name in ("install_from_fab", "get_load_client_app_fn"):  # put back behind the test
            monkeypatch.setattr(run_clientapp, name, getattr(run_clientapp, name))
        monkeypatch.setattr(run_clientapp, "pull_task_input", lambda client: (message, context, Run, fab))
        monkeypatch.setattr(run_clientapp, "push_message", pushed)
        monkeypatch.setattr(run_clientapp, "flwr_exit", lambda **_: None)
        monkeypatch.setattr(run_clientapp, "register_signal_handlers", lambda **_: None)
        monkeypatch.setattr(run_clientapp, "event", lambda *_: None)  # telemetry
        monkeypatch.setattr(RuntimeHttpClient, "from_server_address", lambda **_: Client())
        monkeypatch.setattr(run_clientapp, "HeartbeatSender", lambda *_: Client())
        monkeypatch.setattr(sys, "argv", ["task", "--runtime-api-address=127.0.0.1:9", "--token=token", "--insecure"])
        task.main()
    assert task.installed_app("stranger/app", "6.6.6", "0") is app
    [reply] = replies
    assert isinstance(reply.error, Error) and "code: VectorError" in str(reply.error.reason)  # what our app says of it


def test_importing_for_messages_is_light() -> None:
    """The database of Flower's own command would take longer than an answer; torch would stay in a device's memory."""
    code = f"import sys, {TASK}; assert not {{'alembic', 'torch'}} & {{*sys.modules}}"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.skipif(not FORKS, reason="no process is forked")
def test_what_is_forked_for_messages_has_no_threads() -> None:
    """But those of numpy's library, which ends them before a fork."""
    code = f"import os, {TASK}; print(len(os.listdir('/proc/self/task')))"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment)
    assert done.stdout == "1\n"
