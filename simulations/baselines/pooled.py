"""The upper bound: all that the fleet plays is in one place, and one learner encodes it.

Games, seeds and random streams are those of the fleet. Nothing is clipped, and advantages are measured against what all
of these games earned at the same step, which no device and no server of a federation sees.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ...client.app import guarded, player_of, private_games
from ...client.runtime import Runtime
from ...client.trajectory_bytes import trajectory_to_bytes
from ...codecs.encoder import SaysWords, count, encode, load_encoder
from ...games.player import play_episodes
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.host.files import write_whole
from ...protocol.messages import reply_to_records, request_from_records
from ...protocol.records.events import Listener
from ...protocol.records.summary import CycleRecord
from ...server.cycle.phases import cycle_folder
from ...server.summary import read_summary, write_summary
from ..engines import check
from ..inprocess import run_inprocess
from .baseline import in_the_open

UNBOUNDED = 1e9  # a clipping norm that no vector reaches


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """One node in the fleet's place."""

    NAME: ClassVar[str] = "pooled"

    def check(self, config: RunConfig) -> RunConfig:
        """Take the clipping off."""
        if isinstance(load_encoder(config.codec.name), SaysWords):
            raise ConfigError(f"the baseline 'pooled' needs a codec of vectors, not {config.codec.name!r}")
        codec = replace(config.codec, clipping_norm=UNBOUNDED, fisher_norm=UNBOUNDED)
        pooled = replace(in_the_open(config, self), codec=codec)
        check(pooled)
        return pooled

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run one node that plays for everybody; the summary says what its trajectories take to send."""
        run_inprocess(config, listener, make=make_pooled_app, present=(0,))
        out = Path(config.out)
        summary = read_summary(out)
        first, *later = summary.cycles
        write_summary(out, replace(summary, cycles=(first, *(_with_sizes(record, out) for record in later))))


def make_pooled_app(runtime: Runtime) -> ClientApp:
    """Build the app of a node that plays every client's games."""
    app = ClientApp()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        return guarded(message, lambda: answer(message.content, context, runtime))

    return app


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play what all clients are asked, and encode it as if it were one client's."""
    config, request = RunConfig.from_flat(context.run_config), request_from_records(records)
    encoder, clients = load_encoder(config.codec.name), config.clients
    parts = [private_games(config, request.cycle, client, clients) for client in range(clients)]
    games, seeds = [game for own, _ in parts for game in own], [seed for _, own in parts for seed in own]
    policy = player_of(config, request, encoder, runtime)
    played = play_episodes(policy, games, seeds, runtime.cache(config))
    size = sum(len(trajectory_to_bytes(each)) for each in played) / clients
    write_whole(_sizes(Path(config.out), request.cycle), json.dumps(size).encode())
    discount = config.codec.discount
    baseline = count(played, request.spec, discount).baseline()
    return reply_to_records(encode(encoder, policy, played, request.spec, baseline, discount))


def _with_sizes(record: CycleRecord, out: Path) -> CycleRecord:
    return replace(record, uplink_bytes=json.loads(_sizes(out, record.cycle).read_text(encoding="ascii")))


def _sizes(out: Path, cycle: int) -> Path:
    """Where the bytes of a client's trajectories in a cycle are kept."""
    return cycle_folder(out, cycle) / "pooled.json"
