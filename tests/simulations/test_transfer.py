"""Games that nobody learns from: planned apart, played by every version, and shown."""

from __future__ import annotations

import json
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import pytest

from fedoel.games.splits import fingerprint
from fedoel.protocol.config import CodecConfig, GamesConfig, PolicyConfig, PrivacyConfig, RunConfig, ServerConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.host.cache import cache_folder
from fedoel.protocol.records.summary import Floors, Summary
from fedoel.server.app import check
from fedoel.server.public.game_plan import GamePlan
from fedoel.simulations.experiment import load_experiment, refusals
from fedoel.simulations.experiment_table import arms_table, lowest_change
from fedoel.simulations.floor import add_tactics_floor, tactics_only
from fedoel.simulations.inprocess import run_inprocess
from fedoel.simulations.report import write_report

from .conftest import make_summary, stats, write_run

RENAMED, LAKE = "coin-collector level=102 renamed=1 turns=6", "frozen-lake turns=6"


@pytest.fixture
def config(cache: Path, tmp_path: Path) -> RunConfig:
    games = GamesConfig("coin-collector level=102 turns=6", "iid", 4, 4, 6, 10, transfer=f"{RENAMED}; {LAKE}")
    return RunConfig(
        clients=3, cycles=1, cache=str(cache), out=str(tmp_path / "run"), games=games,
        policy=PolicyConfig(backend="tactics"), server=ServerConfig("games"),
    )  # fmt: skip


def test_games_for_transfer_are_as_many_as_of_a_family_and_apart_from_those_to_learn_from(config: RunConfig) -> None:
    plan = GamePlan.of(config)
    assert {name: len(games) for name, games in plan.transfer.items()} == {RENAMED: 10, LAKE: 10}
    learned = {fingerprint(*game) for game in (*plan.rehearsal, *chain.from_iterable(plan.gate))}
    assert not learned & {fingerprint(*game) for games in plan.transfer.values() for game in games}
    # In other words, they are the held-out games themselves.
    assert [fingerprint(*game) for game in plan.transfer[RENAMED]] == [fingerprint(*game) for game in plan.held_out]
    assert dict(plan.transfer[LAKE][0][0].settings)["split"] == "test"
    families = "coin-collector level=102 turns=6; sokoban turns=5"
    two = GamePlan.of(replace(config, games=replace(config.games, families=families, held_out=9)))
    assert {len(games) for games in two.transfer.values()} == {5}
    assert GamePlan.of(replace(config, games=replace(config.games, transfer=""))).transfer == {}


@pytest.mark.parametrize(
    "games", ["coin-collector level=102 turns=6", "coin-collector level=102 renamed=0 turns=9", f"{LAKE}; {LAKE}"]
)
def test_what_is_learned_from_is_no_transfer(config: RunConfig, games: str) -> None:
    with pytest.raises(ConfigError, match=r"games\.transfer must name games that nobody learns from"):
        GamePlan.of(replace(config, games=replace(config.games, transfer=games)))


def test_tactics_alone_learn_nothing_for_other_words(config: RunConfig) -> None:
    run_inprocess(config)
    add_tactics_floor(config)
    found: dict[str, Any] = json.loads((Path(config.out) / "summary.json").read_text())
    first, *_, last = found["cycles"]
    assert last["decision"] == "promoted"
    assert last["held_out"]["win_rate"] > first["held_out"]["win_rate"]
    # Before anything is learned, the same choices are made in either words; afterwards, still those.
    keys = ("win_rate", "episodes", "score", "turns_per_win")
    assert all(entry["transfer"][RENAMED][key] == first["held_out"][key] for entry in found["cycles"] for key in keys)
    assert all(set(floor["transfer"]) == {RENAMED, LAKE} for floor in found["floors"].values())
    walked = found["floors"]["walkthrough"]["transfer"]
    assert {name: each["win_rate"] for name, each in walked.items()} == {RENAMED: 1.0, LAKE: 1.0}
    assert (
        found["floors"]["heuristic"]["transfer"][RENAMED] == found["floors"]["heuristic"]["families"]["coin-collector"]
    )
    assert found["floors"]["tactics_only"]["transfer"] == last["transfer"]


def shown(rate: float, end: float) -> Summary:
    """A summary of a run that went from one rate to another elsewhere, too."""
    summary = make_summary()
    probes = {"perplexity": 33.0, "base_perplexity": 30.0, "instructions": 0.5, "base_instructions": 0.4}
    cycles = tuple(
        replace(record, transfer={LAKE: stats(won)}, probes=probes)
        for record, won in zip(summary.cycles, (rate, rate, rate, end), strict=True)
    )
    floors = {name: replace(floor, transfer={LAKE: stats(0.02)}) for name, floor in summary.floors.named().items()}
    return replace(summary, cycles=cycles, floors=Floors(**floors))


def test_report_and_table_show_it_where_a_run_has_it(tmp_path: Path) -> None:
    with_it, without = shown(0.1, 0.3), make_summary()
    page = write_report(write_run(tmp_path / "with", with_it)).read_text()
    assert LAKE in page
    assert "50 % (base 40 %)" in page
    assert LAKE not in write_report(write_run(tmp_path / "without", without)).read_text()
    lines = [
        [cell.strip() for cell in line.split("|")] for line in arms_table({"a": [with_it], "b": [without]}).splitlines()
    ]
    assert len({len(line) for line in lines}) == 1
    head, _, a, b, random, *_ = lines
    column = {name: place for place, name in enumerate(head)}
    assert a[column[LAKE]] == "10 % → **30 %**"
    assert b[column[LAKE]] == "- → **-**"
    assert a[column["perplexity / base"]] == "1.100"
    assert a[column["instructions"]] == "50 %, base 40 %"
    assert a[column["lowest change in a cycle"]] == "+0"
    assert (b[column["perplexity / base"]], b[column["instructions"]]) == ("-", "-")
    assert random[column["after consolidation"]] == "20 %"
    plain = arms_table({"b": [without]}).splitlines()[0]
    assert "perplexity" not in plain and "answer" not in plain and LAKE not in plain


def test_the_lowest_change_is_a_fall_if_there_was_one() -> None:
    summary = make_summary(rates=(0.2, 0.5, 0.4, 0.6))
    assert lowest_change(summary) == pytest.approx(-10)


def test_without_a_list_tactics_cannot_play_and_the_table_says_so(tmp_path: Path) -> None:
    experiment = load_experiment("transfer")
    refused = refusals(experiment, tmp_path)
    (arm,) = refused
    assert "policy.decoding 'free' needs policy.backend 'torch'" in refused[arm]
    assert f"| {arm} | cannot: {refused[arm]} |" in arms_table({"a": [make_summary()]}, refused)
    possible = replace(experiment, impossible={"tactics": {"policy.backend": "tactics"}})
    with pytest.raises(ConfigError, match="'tactics' can be run"):
        refusals(possible, tmp_path)


@pytest.mark.parametrize(
    "change",
    [
        {"policy": PolicyConfig(decoding="free"), "codec": CodecConfig(name="tactics-text")},
        {
            "policy": PolicyConfig(decoding="free"),
            "codec": CodecConfig(name="tactics-text"),
            "server": ServerConfig("games", max_invalid=0.1, max_answer_tokens=8),
        },
        {"codec": CodecConfig(name="text"), "privacy": PrivacyConfig(allow_plaintext=True)},
    ],
    ids=["free", "bounds on answers", "text"],
)
def test_the_baseline_without_a_language_model_can_be_run_beside_every_run(
    config: RunConfig, change: dict[str, Any]
) -> None:
    check(tactics_only(replace(config, **change)), cache_folder(config))
