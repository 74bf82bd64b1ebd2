"""The whole system with the packaged SmolLM2, as small as it gets: that the parts fit, not that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.protocol.config import (
    DistilConfig,
    GamesConfig,
    PolicyConfig,
    RunConfig,
    ServerConfig,
    StrategyConfig,
    WarmStartConfig,
)
from fedoel.protocol.experience import BASE_COUNTERS
from fedoel.protocol.records.events import Event, Listener, PhaseStarted
from fedoel.protocol.records.json_codec import to_json
from fedoel.server.registry import load_adapter
from fedoel.simulations.held_out import measure
from fedoel.simulations.inprocess import run_inprocess

from .gates import OpenGate

pytestmark = pytest.mark.slow


class Interrupted(Exception):
    """Somebody pulled the plug."""


def stop_in(phase: str) -> Listener:
    def listen(event: Event) -> None:
        if isinstance(event, PhaseStarted) and event.phase == phase:
            raise Interrupted

    return listen


def results(out: Path) -> dict[str, Any]:
    """The summary without clocks and places."""
    found: dict[str, Any] = json.loads((out / "summary.json").read_text())
    for entry in found["cycles"]:
        entry.pop("seconds")
    return {**found, "config": None}


def test_a_language_model_goes_through_a_cycle_and_resumes_to_the_same(
    cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedoel.server.probes.states.LONGEST", 64)
    games = GamesConfig("coin-collector level=2 turns=4", "iid", per_client=2, rehearsal=2, gate=2, held_out=3)
    config = RunConfig(
        clients=2,
        cycles=1,
        cache=str(cache),
        out=str(tmp_path / "whole"),
        games=games,
        policy=PolicyConfig(device="cpu", lora_layers=2, lora_rank=4),
        strategy=StrategyConfig(exchanges=2),
        distil=DistilConfig(steps=3, batch=4),
        warm_start=WarmStartConfig(steps=3, batch=4),
        server=ServerConfig("games"),
    )
    run_inprocess(config, make_gate=OpenGate)
    whole = Path(config.out)
    found = results(whole)
    first, last = found["cycles"]
    assert last["decision"] == "promoted"
    assert 0 < last["uplink_bytes"] <= 4096
    assert last["downlink_bytes"] > last["adapter_bytes"] > 0
    with np.load(whole / "checkpoints" / "cycle-001" / "collect.npz") as kept:
        first_part = kept["vector"][2 * DIMENSION :][:BASE_COUNTERS]
    with np.load(whole / "checkpoints" / "cycle-001" / "collect-2.npz") as kept:
        counters = first_part + kept["vector"][2 * DIMENSION :][:BASE_COUNTERS]
    episodes, _, turns, tokens, _ = counters.tolist()
    assert episodes == 4
    assert tokens > 60 * turns  # head, goal and room alone are longer
    for entry in (first, last):
        assert entry["held_out"]["tokens_per_win"] is None or entry["held_out"]["tokens_per_win"] > 0

    (_, before), (version, after) = (load_adapter(whole / "versions" / entry["version"]) for entry in (first, last))
    assert version == last["version"] != first["version"]
    assert before.keys() == after.keys()
    assert any(not np.array_equal(before[name], after[name]) for name in after)
    peft = json.loads((whole / "versions" / version / "adapter_config.json").read_text())
    assert (peft["peft_type"], peft["r"], len(peft["layers_to_transform"])) == ("LORA", 4, 2)

    assert {name: to_json(rates) for name, rates in measure(config, whole / "versions" / version).items()} == last[
        "families"
    ]

    again = replace(config, out=str(tmp_path / "again"))
    for phase in ("collect-2", "distil"):
        with pytest.raises(Interrupted):
            run_inprocess(again, stop_in(phase), make_gate=OpenGate)
        again = replace(again, resume=True)
    run_inprocess(again, make_gate=OpenGate)
    assert results(tmp_path / "again") == found
