"""Make the folders that the tests of upgrades read, with the code of a release before.

    git worktree add --detach /tmp/before COMMIT
    PYTHONPATH=FOLDER python tests/upgrade/make.py tests/upgrade/COMMIT.tar.xz

FOLDER is one in which ``fedoel`` is that worktree (`pip install --no-deps --target FOLDER /tmp/before` makes one). The
archive holds:

- ``finished`` and ``interrupted``: the same run of ``frozen.toml``, once to its end and once stopped after a cycle;
- ``server``, ``d0``, ``d1``: a fleet after its run, in which each device has answered;
- ``before``: the device d0 before its first request;
- ``messages``: that request and its answer, as Flower serialises them, and the run's settings.
"""

from __future__ import annotations

import io
import json
import shutil
import sys
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import redirect_stdout, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from flwr.app import Context, Message, RecordDict
from flwr.common.serde import recorddict_to_proto

from fedoel.client.app import make_app
from fedoel.client.device.folder import DeviceFolder
from fedoel.client.device.join import join
from fedoel.protocol.host.files import replace_file
from fedoel.protocol.records.events import CycleFinished, Event
from fedoel.server.operate.folder import ServerFolder, Settings, read_run
from fedoel.server.operate.setup import enroll, init
from fedoel.server.run_folder import own_folder
from fedoel.simulations.floor import add_tactics_floor
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.scenario import load_scenario

WORLD = """\
[games]
families = "frozen-lake size=3 turns=4"
per-client = 3
rehearsal = 4
gate = 4
gate-blocks = 1
held-out = 4
[policy]
backend = "tactics"
[server]
public = "games"
[strategy]
name = "mean"
"""
SCENARIO = f"seed = 9000\nclients = 2\ncycles = 2\n{WORLD}"
RUN = f"seed = 9000\ncycles = 1\n{WORLD}min-available-nodes = 2\n"
LEFT_OUT = ("cache", "flower", ".part")  # what says nothing about formats, and takes room


def make_runs(folder: Path) -> None:
    """Play a run to its end, and the same run until it is stopped."""

    def stop(event: Event) -> None:
        if isinstance(event, CycleFinished) and event.cycle == 1:
            raise KeyboardInterrupt

    scenario = folder / "frozen.toml"
    scenario.write_text(SCENARIO, encoding="utf-8")
    for name, listener in (("finished", None), ("interrupted", stop)):
        config = load_scenario(str(scenario), {"out": str(folder / name)})
        with suppress(KeyboardInterrupt), own_folder(config):
            run_inprocess(config, listener)
            add_tactics_floor(config)


def make_fleet(folder: Path) -> None:
    """Let two devices join a fleet, and play its run in this process, each in its own folder."""
    server, devices = ServerFolder(folder / "server"), [DeviceFolder(folder / f"d{number}") for number in range(2)]
    init(server, Settings(("127.0.0.1",), 9, "127.0.0.1:9"))
    server.run_file.write_text(RUN, encoding="utf-8")
    for device in devices:
        join(device, device.path.name)
        enroll(server, device.path / f"{device.path.name}.pub", out=folder / "bundle")
    for number, device in enumerate(devices):  # again, with the list of both
        enroll(server, device.path / f"{device.path.name}.pub", out=folder / "bundle")
        join(device, bundle=folder / "bundle")
        replace_file(device.game_key, bytes([number + 1] * 32).hex(), secret=True)
    (folder / "bundle").rename(folder / "d1.fleet")
    config = replace(read_run(server), clients=2)
    with own_folder(config):
        run_inprocess(config, make=lambda runtime: recording(folder, make_app(runtime)))  # type: ignore[arg-type, return-value]


def recording(folder: Path, app: Any) -> Callable[[Message, Context], Message]:
    """Return a device's app that runs in its folder, and writes down what the first device is asked, and answers."""
    messages = folder / "messages"

    def answer(message: Message, context: Context) -> Message:
        number = int(context.node_config["partition-id"])
        home = folder / f"d{number}"
        context.node_config |= {
            "home": str(home), "store": str(home / "store.sqlite"), "store-key": str(home / "keys" / "store.key"),
        }  # fmt: skip
        first = number == 0 and not messages.exists()
        if first:
            shutil.copytree(home, folder / "before")
            messages.mkdir()
            keep(messages / "request.bin", message.content)
            (messages / "settings.json").write_text(json.dumps(dict(context.run_config)), encoding="utf-8")
        reply: Message = app(message, context)
        if first:
            keep(messages / "reply.bin", reply.content)
        return reply

    return answer


def keep(path: Path, content: RecordDict) -> None:
    """Write records as Flower sends them."""
    path.write_bytes(recorddict_to_proto(content).SerializeToString())


def main(archive: Path) -> None:
    """Make everything, and pack it."""
    with tempfile.TemporaryDirectory() as name, redirect_stdout(io.StringIO()):
        folder = Path(name)
        make_runs(folder)
        make_fleet(folder)
        with tarfile.open(archive, "w:xz", preset=9) as packed:
            for path in sorted(folder.rglob("*")):
                inside = path.relative_to(folder)
                if path.is_file() and not any(part.endswith(LEFT_OUT) for part in inside.parts):
                    packed.add(path, str(inside))


if __name__ == "__main__":
    main(Path(sys.argv[1]).absolute())
