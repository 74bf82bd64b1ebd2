"""What was said in games stays where it was said: not in replies, logs, summaries or errors."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from flwr.app import Message

from fedoel.client.app import make_app
from fedoel.client.runtime import Runtime, SimulatedRuntime
from fedoel.games import families, player
from fedoel.games.game import Game
from fedoel.policies.policy import LogProbs, Policy
from fedoel.protocol.config import GamesConfig, PolicyConfig, RunConfig, ServerConfig
from fedoel.protocol.host.cache import cache_folder
from fedoel.protocol.messages import PlayRequest, serialised
from fedoel.protocol.play import GameSpec, Observation
from fedoel.protocol.situation import Situation
from fedoel.server import app as server
from fedoel.simulations.audit.leaks import QUOTED
from fedoel.simulations.grid import InProcessGrid, server_identity

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("client", "codecs", "games", "policies", "protocol", "server", "simulations", "strategies")
MARKS = ("xyzzyroom", "xyzzygoal", "xyzzycommand")
WORD = re.compile(r"[a-z]{4,}")


@dataclass
class Marked:
    """A game whose every text carries a word that is nowhere else, and what it said."""

    inner: Game
    said: set[str]

    def reset(self, seed: int) -> Observation:
        return self._mark(self.inner.reset(seed))

    def step(self, command: str) -> Observation:
        return self._mark(self.inner.step(command.removesuffix(f" {MARKS[2]}")))

    def walkthrough(self) -> tuple[str, ...] | None:
        return self.inner.walkthrough()

    def close(self) -> None:
        self.inner.close()

    def _mark(self, seen: Observation) -> Observation:
        self.said |= set(WORD.findall(" ".join([seen.text, seen.goal, *seen.admissible]).lower()))
        return replace(
            seen,
            text=f"{seen.text} {MARKS[0]}",
            goal=f"{seen.goal} {MARKS[1]}",
            admissible=tuple(f"{command} {MARKS[2]}" for command in seen.admissible),
        )


class Tapped(InProcessGrid):
    """A grid that keeps a copy of every byte that comes back."""

    def __init__(self, runtime: Runtime, config: RunConfig) -> None:
        super().__init__(make_app(runtime), config.clients, config.to_flat())
        self.heard = b""

    def _keep(self, reply: Message) -> None:
        self.heard += repr(reply.metadata).encode()
        self.heard += serialised(reply.content) if reply.has_content() else repr(reply.error).encode()
        super()._keep(reply)


class Leaky:
    """A policy that fails by quoting what it read."""

    version = "v1"
    abilities: frozenset[str] = frozenset()

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        raise RuntimeError(f"cannot play {situations}")

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return [0] * len(situations)


@dataclass(frozen=True)
class LeakyRuntime(SimulatedRuntime):
    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        return Leaky()


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """Every word of the games that are played from now on."""
    found: set[str] = set()
    build = families.build_game

    def marked(spec: GameSpec, cache: Path) -> Game:
        return Marked(build(spec, cache), found)

    monkeypatch.setattr(player, "build_game", marked)
    return found


@pytest.fixture
def logged(caplog: pytest.LogCaptureFixture) -> Iterator[pytest.LogCaptureFixture]:
    """Flower's logger does not hand its records on, so the root's handler alone would hear nothing."""
    flower = logging.getLogger("flwr")
    flower.addHandler(caplog.handler)
    with caplog.at_level(logging.DEBUG):
        yield caplog
    flower.removeHandler(caplog.handler)


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    games = GamesConfig("coin-collector level=102 turns=5; cooking recipe=1 take=1 turns=5", "iid", 2, 2, 4, 4)
    policy = PolicyConfig(backend="tactics")
    return RunConfig(
        clients=3, cycles=1, cache=str(cache), out=str(tmp_path / "run"), games=games, policy=policy,
        server=ServerConfig("games"),
    )  # fmt: skip


def public() -> set[str]:
    """Words that everybody knows before anything is played: those of the code itself."""
    sources = (path for name in PACKAGES for path in (ROOT / name).rglob("*.py"))
    return {word for path in sources for word in WORD.findall(path.read_text(encoding="utf-8").lower())}


def written(out: Path) -> str:
    return "".join((out / name).read_text() for name in ("events.jsonl", "summary.json"))


def check(text: str, said: set[str]) -> None:
    assert not [mark for mark in MARKS if mark in text]
    assert not set(WORD.findall(text.lower())) & (said - public())


def test_nothing_that_games_said_leaves_them(
    config: RunConfig, said: set[str], logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = Tapped(SimulatedRuntime(), config)
    with server_identity():
        server.run(grid, config, cache_folder(config))
    assert len(said - public()) > 20
    check(grid.heard.decode("latin-1"), said)
    check(written(Path(config.out)), said)
    assert "CYCLE" in logged.text
    check(logged.text + "".join(capfd.readouterr()), said)
    for file in Path(config.out).rglob("*"):
        if file.is_file() and file.stem not in QUOTED:
            assert not [mark for mark in MARKS if mark.encode() in file.read_bytes()]


def test_a_client_that_fails_says_nothing_either(
    config: RunConfig, said: set[str], logged: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    grid = Tapped(LeakyRuntime(), config)
    with server_identity():
        server.run(grid, config, cache_folder(config))
    check(grid.heard.decode("latin-1"), said)
    check(written(Path(config.out)) + logged.text + "".join(capfd.readouterr()), said)
    assert '"client RuntimeError": 3' in written(Path(config.out))
