"""A run, a fleet's folders and a device whose disk is full at every write once: a sentence each time, nothing lost."""

from __future__ import annotations

import io
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedoel.cli.main import main
from fedoel.client.device.folder import open_store
from fedoel.client.device.runtime import DeviceRuntime
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import FedoelError
from fedoel.server.run_folder import STORED, own_folder
from fedoel.server.run_location import locate
from fedoel.server.summary import read_summary
from fedoel.server.verify import verify
from fedoel.simulations.grid import server_identity
from fedoel.simulations.inprocess import run_inprocess

from ..client.device.fleet_of_devices import Devices, SecureRound
from ..full_disk import full_disk

RUN: dict[str, Any] = {
    "clients": 5, "cycles": 1, "seed": 9000, "games.families": "frozen-lake size=3 turns=4", "games.per-client": 2,
    "games.held-out": 4, "policy.backend": "tactics", "policy.threads": 1, "strategy.name": "secure-mean",
    "strategy.min-available-nodes": 5, "server.pack": 16, "server.prompts-per-cycle": 16, "trial.share": 1.0,
    "context.max-kl": 0.5,
}  # fmt: skip
MOST = 300  # attempts


def run(config: RunConfig) -> None:
    config = replace(config, resume=(Path(config.out) / STORED).exists())
    with own_folder(config):
        run_inprocess(config)


def until_done(work: Callable[[], Any]) -> list[str]:
    """Do something again and again until nothing is in its way; return what was said each time."""
    said = list[str]()
    for _ in range(MOST):
        try:
            work()
            return said
        except FedoelError as error:
            said.append(str(error))
    raise AssertionError(f"it never ends: {said[-1]}")


def test_a_run_whose_disk_is_full_at_every_write_says_so_and_loses_nothing(cache: Path, tmp_path: Path) -> None:
    config = RunConfig.from_flat({**RUN, "cache": str(cache), "out": str(tmp_path / "run")})
    whole = replace(config, out=str(tmp_path / "whole"))
    run(whole)
    with full_disk(tmp_path / "run") as disk:
        said = until_done(lambda: run(config))
    assert len(said) == len(disk.refused) > 60
    assert not [sentence for sentence in said if "\n" in sentence or "No space left" not in sentence]
    found, wanted = (
        [(record.cycle, record.decision, record.version, record.held_out) for record in read_summary(Path(out)).cycles]
        for out in (config.out, whole.out)
    )
    assert found == wanted
    assert not verify(locate(tmp_path / "run")).problems


def command(*words: object) -> None:
    """Run a command as a shell does; raise what it says if it is refused."""
    errors = io.StringIO()
    with redirect_stdout(io.StringIO()), redirect_stderr(errors):
        code = main([str(word) for word in words])
    if code:
        assert code == 2
        raise FedoelError(errors.getvalue().removesuffix("\n"))


def test_a_fleet_is_made_on_a_disk_that_is_full_at_every_write(tmp_path: Path) -> None:
    server, device, bundle = tmp_path / "server", tmp_path / "device", tmp_path / "one.fleet"
    steps = (
        ("server", "init", server, "--host", "127.0.0.1", "--set", "server.public=games"),
        ("device", "join", device, "--name", "one"),
        ("server", "enroll", server, device / "one.pub", "--out", bundle),
        ("device", "join", device, "--bundle", bundle),
        ("server", "revoke", server, "one"),
    )
    with full_disk(tmp_path) as disk:
        for words in steps:
            disk.refused.clear()
            said = until_done(partial(command, *words))
            assert not [sentence for sentence in said if "\n" in sentence or "No space left" not in sentence], words
            assert len(said) == len(disk.refused) > 4, words
    with redirect_stdout(io.StringIO()) as printed:
        assert main(["server", "log", "verify", str(server)]) == 0
    assert "2 entries, each signed" in printed.getvalue()


class FullRound(SecureRound):
    """A round in which device 0 is asked again whenever its disk is full."""

    said: list[str]

    def step(self, position: int, phase: str) -> bytes:
        if self.numbers[position]:
            return super().step(position, phase)
        answers = list[bytes]()
        self.said += until_done(lambda: answers.append(super(FullRound, self).step(position, phase)))
        return answers[-1]


def test_a_device_whose_disk_is_full_at_every_write_answers_when_it_is_asked_again(tmp_path: Path) -> None:
    with server_identity():
        devices = Devices.make(tmp_path)
        kept = devices.device(0)
        devices.contexts[0].node_config |= {"store": str(kept.store), "store-key": str(kept.store_key)}
        asked = FullRound(devices, devices.request(), range(5), 1)
        asked.said = []
        with full_disk(kept.path) as disk:
            asked.run_to()
    assert not asked.refused and np.linalg.norm(asked.sum()) > 0
    assert len(disk.refused) > 15
    assert not [code for code in asked.said if "OSError" in code], "its owner is told why"
    counted, _ = DeviceRuntime(kept.path).contributions.refusals()
    assert sum(counted.values()) >= len(asked.said) - 2, "but for those that the record had no room for"
    logged = open_store(kept).read()
    assert not logged.damaged and len(logged.rows) >= 3
