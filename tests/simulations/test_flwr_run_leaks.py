"""A real `flwr run` over games whose every text is marked: no reply, no log and no file has a mark."""

from __future__ import annotations

import tempfile
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, ServerConfig, StrategyConfig
from fedoel.simulations import ray_engine

MARKS = (b"xyzzyroom", b"xyzzygoal", b"xyzzycommand")
# Python runs this in every process that Flower and Ray start. It marks what games say on devices, and keeps replies.
TAP = """
import importlib.abc
import importlib.util
import os
import sys
from dataclasses import replace


class Marked:
    def __init__(self, inner):
        self.inner = inner

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def reset(self, seed):
        return mark(self.inner.reset(seed))

    def step(self, command):
        return mark(self.inner.step(command.removesuffix(" xyzzycommand")))


def mark(seen):
    commands = tuple(f"{command} xyzzycommand" for command in seen.admissible)
    return replace(seen, text=f"{seen.text} xyzzyroom", goal=f"{seen.goal} xyzzygoal", admissible=commands)


def every_byte(item):
    return bytes(item.deflate()) + b"".join(every_byte(child) for child in (item.children or {}).values())


def tap(module):
    from fedoel.games import player
    from fedoel.games.families import build_game

    def marked(spec, cache):
        with open(os.environ["MARKED"], "ab") as file:
            file.write(b"x")
        return Marked(build_game(spec, cache))

    kind, call = type(module.app), type(module.app).__call__

    def tapped(self, message, context):
        player.build_game = marked
        try:
            reply = call(self, message, context)
        finally:
            player.build_game = build_game
        with open(os.environ["TAPPED"], "ab") as file:
            file.write(repr(reply.metadata).encode() + every_byte(reply.content))
        return reply

    kind.__call__ = tapped


class Finder(importlib.abc.MetaPathFinder):
    busy = False

    def find_spec(self, name, path, target=None):
        if name != "fedoel.client.app" or Finder.busy:
            return None
        Finder.busy = True
        spec = importlib.util.find_spec(name)
        load = spec.loader.exec_module

        def load_and_tap(module):
            load(module)
            tap(module)

        spec.loader.exec_module = load_and_tap
        return spec


sys.meta_path.insert(0, Finder())
"""


@pytest.mark.slow
def test_nothing_that_games_said_leaves_a_device(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    site, work, tapped, marked = (tmp_path / name for name in ("site", "work", "tapped", "marked"))
    site.mkdir()
    work.mkdir()
    (site / "sitecustomize.py").write_text(TAP)
    monkeypatch.setenv("PYTHONPATH", str(site))
    monkeypatch.setenv("TAPPED", str(tapped))
    monkeypatch.setenv("MARKED", str(marked))
    kept: Any = lambda *arguments, **settings: nullcontext(str(work))  # noqa: E731
    monkeypatch.setattr(tempfile, "TemporaryDirectory", kept)
    config = RunConfig(
        clients=5, cycles=1, cache=str(cache), out=str(tmp_path / "run"),
        games=GamesConfig(families="frozen-lake size=3 turns=4", per_client=2, rehearsal=2, gate=2, held_out=2),
        policy=PolicyConfig(backend="tactics"), strategy=StrategyConfig(name="secure-mean"),
        server=ServerConfig("games"),
    )  # fmt: skip
    ray_engine.run_ray(config)
    assert marked.stat().st_size >= 10, "games were played on devices"
    assert len(tapped.read_bytes()) > 5 * 1000, "all five phases were answered"
    for file in (tapped, *work.rglob("*"), *(tmp_path / "run").rglob("*")):
        if file.is_file():
            content = file.read_bytes()
            assert not [mark for mark in MARKS if mark in content], file
