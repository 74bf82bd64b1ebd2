"""A small real run that is searched for leaks: every byte that leaves a device, every log line and every file.

The texts of the games are recorded where the policy reads them. A leak is a substring of such a text, too long to occur
by chance, in a reply, a log or a file. Left out are the files in which a run keeps public prompts and a held-out game
for people to read: they have the same phrases as games of devices, and are made of nothing that a device has sent. The
number of unmasked sums is compared with the privacy ledger.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from flwr.app import Message

from ...client.app import make_app
from ...client.runtime import Runtime, SimulatedRuntime
from ...policies.policy import LogProbs, Policy
from ...protocol.config import RunConfig
from ...protocol.host.cache import cache_folder
from ...protocol.messages import serialised
from ...protocol.secagg.messages import ACTIONS
from ...protocol.situation import Situation
from ...server import app as server
from ...server.cycle.behaviour import BEHAVIOUR, REPLAYED
from ...server.safeguards import Ledger
from ..grid import InProcessGrid, server_identity
from ..wrapping import WrappingRuntime

LENGTH = 18  # characters of a quotation
QUOTED = (BEHAVIOUR, REPLAYED)  # files with texts of public prompts and of a held-out game


@dataclass(frozen=True, slots=True)
class Surveillance:
    """Results: characters of game text read, quotations found, sums unmasked, and releases in the ledger."""

    heard: int
    leaks: tuple[str, ...]
    unmasked: int
    journaled: int


@dataclass(frozen=True)
class RecordingPolicy:
    """A policy that records the game texts that it reads."""

    inner: Policy
    texts: set[str]
    abilities: ClassVar[frozenset[str]] = frozenset()

    @property
    def version(self) -> str:
        return self.inner.version

    def score(self, situations: Sequence[Situation]) -> list[LogProbs]:
        for situation in situations:
            texts = (situation.place_text, situation.reply, situation.note, situation.goal)
            self.texts.update(filter(None, texts))
        return self.inner.score(situations)

    def tokens(self, situations: Sequence[Situation]) -> list[int]:
        return self.inner.tokens(situations)


class TappedGrid(InProcessGrid):
    """A grid that records every byte of every reply, and the secure sums that were unmasked."""

    def __init__(self, runtime: Runtime, config: RunConfig) -> None:
        super().__init__(make_app(runtime), config.clients, config.to_flat())
        self.replies: list[bytes] = []
        self.rounds: set[bytes] = set()

    def _keep(self, reply: Message) -> None:
        self.replies.append(repr(reply.metadata).encode())
        self.replies.append(serialised(reply.content) if reply.has_content() else repr(reply.error).encode())
        super()._keep(reply)

    def _answer(self, message: Message, context: Any) -> Message:
        if message.metadata.message_type == ACTIONS["unmask"]:
            self.rounds.add(bytes(message.content["secure"]["round"]))  # type: ignore[arg-type]
        return super()._answer(message, context)


def watch(config: RunConfig, out: Path, runtime: Runtime | None = None) -> Surveillance:
    """Run a small version of a configuration once, and search it for leaks.

    Parameters
    ----------
    runtime
        The devices' runtime; by default the real one.
    """
    config, texts = small(config, out), set[str]()
    recording = WrappingRuntime(runtime or SimulatedRuntime(), lambda policy: RecordingPolicy(policy, texts))
    grid = TappedGrid(recording, config)
    with server_identity(), _logged() as lines:
        server.run(grid, config, cache_folder(config))
    files = [path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file() and path.stem not in QUOTED]
    outputs = {"replies": b"\n".join(grid.replies), "logs": "\n".join(lines).encode(), "files": b"\n".join(files)}
    leaks = [f"{name}: {leak!r}" for name, output in outputs.items() if (leak := _leak(texts, output))]
    ledger = out / "privacy.jsonl"
    journaled = Ledger(ledger).spent() if ledger.exists() else 0
    return Surveillance(sum(map(len, texts)), tuple(leaks), len(grid.rounds), journaled)


def small(config: RunConfig, out: Path) -> RunConfig:
    """Return a configuration with the same protections, eight devices, few games and no language model."""
    games = replace(
        config.games, families="coin-collector level=1 turns=4", partition="iid", per_client=1, rehearsal=2, gate=2,
        held_out=2,
    )  # fmt: skip
    strategy = replace(config.strategy, fraction_train=1.0, exchanges=1, min_available_nodes=8)
    return replace(
        config, clients=8, cycles=1, out=str(out), resume=False, games=games, strategy=strategy,
        policy=replace(config.policy, backend="tactics"), privacy=replace(config.privacy, population=0, keys=""),
        trial=replace(config.trial, games=1),
    )  # fmt: skip


def _leak(texts: set[str], output: bytes) -> str:
    """Return the first quotation of a game text in an output; empty if there is none."""
    lowered = output.lower()
    for text in sorted(texts):
        for start in range(0, max(1, len(text) - LENGTH), LENGTH // 2):
            quotation = text[start : start + LENGTH].lower()
            if len(quotation) == LENGTH and quotation.encode() in lowered:
                return quotation
    return ""


@contextmanager
def _logged() -> Iterator[list[str]]:
    """Collect the messages of all loggers; Flower's is included by name, because it does not propagate."""
    lines: list[str] = []

    class Collector(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    collector, loggers = Collector(logging.DEBUG), (logging.getLogger(), logging.getLogger("flwr"))
    for logger in loggers:
        logger.addHandler(collector)
    try:
        yield lines
    finally:
        for logger in loggers:
            logger.removeHandler(collector)
