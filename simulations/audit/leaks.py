"""A small real run under surveillance: every byte that leaves a device, every log line and every file is searched.

What was said in the games is heard where the policy reads it. A leak is a stretch of it, longer than chance would
explain, in anything that a device must not give away. The ledger is compared with what was unmasked.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, ClassVar

from flwr.app import Message

from ...client.app import make_app
from ...client.runtime import Runtime, SimulatedRuntime
from ...games.cache import cache_folder
from ...policies.policy import LogProbs, Policy
from ...protocol.config import RunConfig
from ...protocol.messages import PlayRequest, serialised
from ...protocol.secagg.messages import ACTIONS
from ...protocol.situation import Situation
from ...server import app as server
from ...server.ledger import Ledger
from ..grid import InProcessGrid
from ..identity import server_identity

LENGTH = 18  # characters of a stretch


@dataclass(frozen=True, slots=True)
class Surveillance:
    """What was found: stretches of games in anything that left, and releases beside those in the ledger."""

    heard: int
    leaks: tuple[str, ...]
    unmasked: int
    journaled: int

    @property
    def holds(self) -> bool:
        """Whether nothing leaked, games did say something, and every release was written down."""
        return not self.leaks and self.heard > 100 and self.unmasked == self.journaled


@dataclass(frozen=True)
class Listening:
    """A policy that notes what it reads."""

    inner: Policy
    said: set[str]
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return self.inner.version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        for now in situations:
            self.said.update(filter(None, (now.place_text, now.reply, now.note, now.goal)))
        return self.inner.score(situations)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return self.inner.tokens(situations)


@dataclass(frozen=True)
class ListeningRuntime(SimulatedRuntime):
    """Devices whose policies are listened to."""

    inner: Runtime
    said: set[str] = field(default_factory=set)

    def policy(self, config: RunConfig, request: PlayRequest) -> Policy:
        return Listening(self.inner.policy(config, request), self.said)

    def cache(self, config: RunConfig) -> Path:
        return self.inner.cache(config)

    def membership(self, config: RunConfig, client: int) -> Any:
        return self.inner.membership(config, client)


class TappedGrid(InProcessGrid):
    """A grid that keeps every byte that comes back, and counts the rounds that were unmasked."""

    def __init__(self, runtime: Runtime, config: RunConfig) -> None:
        super().__init__(make_app(runtime), config.clients, config.to_flat())
        self.heard: list[bytes] = []
        self.rounds: set[bytes] = set()

    def _keep(self, reply: Message) -> None:
        self.heard.append(repr(reply.metadata).encode())
        self.heard.append(serialised(reply.content) if reply.has_content() else repr(reply.error).encode())
        super()._keep(reply)

    def _answer(self, message: Message, context: Any) -> Message:
        if message.metadata.message_type == ACTIONS["unmask"]:
            self.rounds.add(bytes(message.content["secure"]["round"]))  # type: ignore[arg-type]
        return super()._answer(message, context)


def watch(config: RunConfig, out: Path, runtime: Runtime | None = None) -> Surveillance:
    """Run a configuration once, in small, and search everything.

    Parameters
    ----------
    runtime
        The devices; by default as they are.
    """
    config, listening = small(config, out), ListeningRuntime(runtime or SimulatedRuntime())
    grid = TappedGrid(listening, config)
    with server_identity(), _logged() as lines:
        server.run(grid, config, cache_folder(config))
    files = [path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()]
    places = {"replies": b"\n".join(grid.heard), "logs": "\n".join(lines).encode(), "files": b"\n".join(files)}
    leaks = [f"{name}: {stretch!r}" for name, text in places.items() if (stretch := _leak(listening.said, text))]
    ledger = out / "privacy.jsonl"
    journaled = Ledger(ledger).spent() if ledger.exists() else 0
    return Surveillance(sum(map(len, listening.said)), tuple(leaks), len(grid.rounds), journaled)


def small(config: RunConfig, out: Path) -> RunConfig:
    """Return the same protections on eight devices and few games, without a language model."""
    games = replace(
        config.games, families="coin-collector level=1 turns=4", partition="iid", per_client=1, rehearsal=2, gate=2,
        held_out=2,
    )  # fmt: skip
    strategy = replace(config.strategy, fraction_train=1.0, exchanges=1, min_available_nodes=8)
    return replace(
        config, clients=8, cycles=1, out=str(out), resume=False, games=games, strategy=strategy,
        policy=replace(config.policy, backend="tactics"), privacy=replace(config.privacy, population=0, keys=""),
    )  # fmt: skip


def _leak(said: set[str], text: bytes) -> str:
    """The first stretch of what games said that stands in a text."""
    lowered = text.lower()
    for part in sorted(said):
        for start in range(0, max(1, len(part) - LENGTH), LENGTH // 2):
            stretch = part[start : start + LENGTH].lower()
            if len(stretch) == LENGTH and stretch.encode() in lowered:
                return stretch
    return ""


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Hear what every logger says, Flower's among them, which hands nothing on."""
    lines: list[str] = []

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    ear, loggers = Ear(logging.DEBUG), (logging.getLogger(), logging.getLogger("flwr"))
    for logger in loggers:
        logger.addHandler(ear)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeHandler(ear)
