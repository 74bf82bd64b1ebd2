"""The baseline without a language model: the same federated loop with the log-linear tactics policy."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from ..protocol.config import CodecConfig, RunConfig
from ..protocol.records.summary import Floor
from ..server.cycle.phases import cycle_folder
from ..server.summary import read_summary, write_summary
from .inprocess import run_inprocess

FOLDER = "tactics-only"


def add_tactics_floor(config: RunConfig) -> None:
    """Run the baseline with the same clients, games and seeds, and add its results to the run's summary."""
    out = Path(config.out)
    summary = baseline = read_summary(out)
    if config.policy.backend != "tactics":
        # The reference policies play the same games with the same random streams.
        source, target = (cycle_folder(folder, 0) / "floors.npz" for folder in (out, out / FOLDER))
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        run_inprocess(tactics_only(config))
        baseline = read_summary(out / FOLDER)
    cycles = tuple(Floor.of(record) for record in baseline.cycles)
    floors = replace(summary.floors, tactics_only=Floor.of(baseline.cycles[-1], cycles))
    write_summary(out, replace(summary, floors=floors))


def tactics_only(config: RunConfig) -> RunConfig:
    """Return the same run without a language model, with listed commands and the codec `tactics`.

    Its student equals its teacher, so that the teacher plays a single held-out game.
    """
    # Clipping norms of another codec do not apply to vectors of `tactics`.
    keeps_norms = config.codec.name.startswith("tactics")
    codec = replace(config.codec, name="tactics") if keeps_norms else CodecConfig(discount=config.codec.discount)
    return replace(
        config,
        name=f"{config.name}, tactics only",
        out=str(Path(config.out) / FOLDER),
        policy=replace(config.policy, backend="tactics", decoding="tree"),
        server=replace(config.server, max_invalid=0, max_answer_tokens=0),  # which are about what is written
        codec=codec,
        privacy=replace(config.privacy, allow_plaintext=False),
        games=replace(config.games, held_out_teacher=1),
    )
