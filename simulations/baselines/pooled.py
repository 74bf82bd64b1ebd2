"""The upper bound: the trajectories of the whole fleet are in one place and are encoded together.

Games, seeds and random streams are those of the fleet. Nothing is clipped. The baseline of the advantages is the mean
return of all these games at the same step, which neither a device nor the server of a federation knows.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar, cast

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from ...client.app import encoder_of, guarded, player_of, private_games
from ...client.runtime import Runtime
from ...client.trajectory_bytes import trajectory_to_bytes
from ...codecs.encoder import SendsWords, count, encode, load_encoder, rewarded
from ...games.player import play_episodes
from ...protocol.config import RunConfig
from ...protocol.errors import ConfigError
from ...protocol.host.files import write_whole
from ...protocol.messages import reply_to_records, request_from_records
from ...protocol.records.events import Listener
from ...server.cycle.phases import cycle_folder
from ...server.cycle.server import CycleServer
from ...server.summary import read_summary, write_summary
from ...strategies.mean import Mean
from ..inprocess import check, run_inprocess
from .baseline import in_the_open

UNBOUNDED = 1e9  # clipping norm above the norm of any vector


@dataclass(frozen=True, kw_only=True)
class Pooled:
    """A run with one node that plays the games of all clients."""

    NAME: ClassVar[str] = "pooled"

    def check(self, config: RunConfig) -> RunConfig:
        """Return the configuration without clipping."""
        if isinstance(load_encoder(config.codec.name), SendsWords):
            raise ConfigError(f"the baseline 'pooled' needs a codec of vectors, not {config.codec.name!r}")
        if config.server.public != "games":
            raise ConfigError("the baseline 'pooled' has no devices to try anything on: set server.public = \"games\"")
        codec = replace(config.codec, clipping_norm=UNBOUNDED, fisher_norm=UNBOUNDED)
        strategy = replace(config.strategy, name=f"{__name__}:{MeanOfAll.__name__}")
        pooled = replace(in_the_open(config, self), codec=codec, strategy=strategy)
        check(pooled)
        return pooled

    def run(self, config: RunConfig, listener: Listener | None = None) -> None:
        """Run the single node; the uplink in the summary is the mean size of a client's trajectories."""
        run_inprocess(config, listener, make=make_pooled_app, present=(0,))
        out = Path(config.out)
        summary = read_summary(out)
        first, *later = summary.cycles
        sizes = [json.loads(_sizes(out, record.cycle).read_text(encoding="ascii")) for record in later]
        sent = [replace(record, uplink_bytes=size) for record, size in zip(later, sizes, strict=True)]
        write_summary(out, replace(summary, cycles=(first, *sent)))


class MeanOfAll(Mean):
    """Takes a vector of the games of all clients, of which a device could not have played so many."""

    @property
    def most_games(self) -> int:
        """Most games of the whole fleet."""
        return super().most_games * cast(CycleServer, self.server).run.config.clients


def make_pooled_app(runtime: Runtime) -> ClientApp:
    """Build the ClientApp of a node that plays the games of all clients."""
    app = ClientApp()

    @app.train("experience")
    def experience(message: Message, context: Context) -> Message:
        return guarded(message, lambda: answer(message.content, context, runtime))

    return app


def answer(records: RecordDict, context: Context, runtime: Runtime) -> RecordDict:
    """Play the games of all clients, and encode the trajectories as one vector."""
    config, request = RunConfig.from_flat(context.run_config), request_from_records(records)
    encoder, clients = encoder_of(config, request), config.clients
    parts = [private_games(config, request.cycle, client, clients) for client in range(clients)]
    games = [game for client_games, _ in parts for game in client_games]
    seeds = [seed for _, client_seeds in parts for seed in client_seeds]
    policy = player_of(config, request, encoder, runtime)
    played = play_episodes(policy, games, seeds, runtime.cache(config))
    size = sum(len(trajectory_to_bytes(trajectory)) for trajectory in played) / clients
    write_whole(_sizes(Path(config.out), request.cycle), json.dumps(size).encode())
    experience, discount = rewarded(played, config.games.refusal), config.codec.discount
    baseline = count(experience, request.spec, discount).baseline()
    return reply_to_records(encode(encoder, policy, experience, request.spec, baseline, discount))


def _sizes(out: Path, cycle: int) -> Path:
    """Return the file with the mean size of a client's trajectories in a cycle, in bytes."""
    return cycle_folder(out, cycle) / "pooled.json"
