"""The baseline without a language model, from the same federated loop: tactics on uniform play."""

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
    """Run the baseline with the same clients, games and seeds, and put its results into the run's summary."""
    out = Path(config.out)
    summary = baseline = read_summary(out)
    if config.policy.backend != "tactics":
        _lend_floors(out)
        run_inprocess(tactics_only(config))
        baseline = read_summary(out / FOLDER)
    cycles = tuple(Floor.of(record) for record in baseline.cycles)
    floors = replace(summary.floors, tactics_only=Floor.of(baseline.cycles[-1], cycles))
    write_summary(out, replace(summary, floors=floors))


def tactics_only(config: RunConfig) -> RunConfig:
    """Return the same run without a language model. Its teacher is what its student becomes: measured only once.

    It writes nothing: its commands are chosen from the list, and its devices send no words.
    """
    # Another codec's norms are those of another vector.
    own = config.codec.name.startswith("tactics")
    codec = replace(config.codec, name="tactics") if own else CodecConfig(discount=config.codec.discount)
    return replace(
        config,
        name=f"{config.name}, tactics only",
        out=str(Path(config.out) / FOLDER),
        policy=replace(config.policy, backend="tactics", decoding="tree"),
        codec=codec,
        privacy=replace(config.privacy, allow_plaintext=False),
        games=replace(config.games, held_out_teacher=1),
    )


def _lend_floors(out: Path) -> None:
    """Let the baseline take the floors as played: they are the same games, with the same random streams."""
    played, wanted = (cycle_folder(folder, 0) / "floors.npz" for folder in (out, out / FOLDER))
    wanted.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(played, wanted)
