"""What a model card says of the gate."""

from __future__ import annotations

from pathlib import Path

from fedoel.protocol.records.summary import GateRecord, Stats
from fedoel.protocol.versions import Manifest
from fedoel.server.evaluation import UNKNOWN
from fedoel.server.model_card import model_card

WON = Stats(win_rate=0.75, low=0.4, high=0.9, episodes=8, score=0.75, turns_per_win=None, tokens_per_win=None)


def card(gate: GateRecord, prompts: str) -> str:
    manifest = Manifest("v", "p", "b", 1, "tactics", (), 4, gate, prompts)
    return model_card(manifest, "peft", "f32", "base", False, {}, Path("nowhere"))


def test_a_card_says_whose_games_the_gate_is_about_and_what_nobody_measured() -> None:
    gate = GateRecord(current=UNKNOWN, teacher=WON, candidate=WON, reason="it wins more")
    of_fleet, of_server = card(gate, "0123456789abcdef"), card(gate, "")
    assert "The fleet's own games" in of_fleet and "Public games" not in of_fleet
    assert "Public games" in of_server and "fleet's own" not in of_server
    assert "| current | not measured | 0 |" in of_fleet and "| candidate | 75 % | 8 |" in of_fleet
    assert "| 0 % |" not in of_fleet
