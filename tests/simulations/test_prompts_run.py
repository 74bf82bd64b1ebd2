"""Whole runs of a server that has prompts only: its fleet decides, the run repeats, and it resumes in a trial."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.games.heuristics import uniform
from fedoel.games.scripted import play_scripted
from fedoel.games.splits import Split, for_split, game_seed
from fedoel.games.tidy import asking
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ConfigError, VersionError
from fedoel.protocol.play import GameSpec
from fedoel.protocol.prompt_pack import Prompt, read_pack, write_pack
from fedoel.protocol.records.events import Listener, PhaseFinished, PhaseStarted
from fedoel.server.current_version import promote
from fedoel.server.cycle.phases import Phases
from fedoel.server.run_location import RunLocation
from fedoel.server.version_list import VersionList
from fedoel.simulations.inprocess import check, run_inprocess
from fedoel.simulations.prompts import with_pack
from fedoel.strategies.experience import ExperienceStrategy

GAMES = "tidy things=1 final=0 turns=8"


@pytest.fixture
def config(tmp_path: Path, cache: Path) -> RunConfig:
    return RunConfig.from_flat({
        "clients": 12, "cycles": 2, "seed": 9000, "games.families": GAMES, "games.per-client": 4, "games.held-out": 6,
        "policy.backend": "tactics", "server.public": "prompts", "server.pack": 60, "server.prompts-per-cycle": 30,
        "context.halvings": 1, "trial.contexts": True, "trial.share": 1.0, "out": str(tmp_path / "run"),
        "cache": str(cache),
    })  # fmt: skip


def cycles(config: RunConfig) -> list[dict[str, Any]]:
    """What the summary says of every cycle, but for the time that it took."""
    entries = json.loads((Path(config.out) / "summary.json").read_text())["cycles"]
    return [{name: value for name, value in entry.items() if name != "seconds"} for entry in entries]


class Stopped(Exception):
    """Stands for a process that is killed."""


def stop_at(kind: type[PhaseStarted] | type[PhaseFinished], cycle: int, phase: str) -> Listener:
    def listen(event: Any) -> None:
        if isinstance(event, kind) and (event.cycle, event.phase) == (cycle, phase):
            raise Stopped

    return listen


def test_a_run_promotes_what_its_fleet_has_tried_and_repeats_to_the_bit(config: RunConfig, tmp_path: Path) -> None:
    run_inprocess(config)
    whole = cycles(config)
    assert "promoted" in {entry["decision"] for entry in whole}
    promoted = next(entry for entry in whole if entry["decision"] == "promoted")
    gate = promoted["gate"]
    assert gate["candidate"]["episodes"] == gate["current"]["episodes"] == config.clients * config.trial.games
    assert (
        gate["candidate"]["win_rate"] > gate["current"]["win_rate"]
        and "of the devices' games are won" in promoted["reason"]
    )
    assert promoted["held_out"]["win_rate"] > whole[0]["held_out"]["win_rate"]
    again = replace(config, out=str(tmp_path / "again"))
    run_inprocess(again)
    assert cycles(again) == whole


def test_a_pack_with_states_of_held_out_games_is_refused_before_any_work(
    config: RunConfig, cache: Path, tmp_path: Path
) -> None:
    spec = for_split(GameSpec.parse(GAMES), Split.HELD_OUT)
    episode = play_scripted(spec, game_seed(Split.HELD_OUT, 3), uniform, np.random.default_rng(0), cache)
    held_out = Prompt("tidy", replace(episode.turns[0].situation, max_turns=7))
    pack = read_pack(Path(with_pack(config, cache).server.prompts))

    def with_prompts(name: str, *prompts: Prompt) -> RunConfig:
        write_pack(tmp_path / name, replace(pack, prompts=(*pack.prompts, *prompts)))
        return replace(config, server=replace(config.server, prompts=str(tmp_path / name)))

    check(with_prompts("clean.jsonl"), 1)
    planted = with_prompts("planted.jsonl", held_out)
    with pytest.raises(ConfigError, match=r"planted.jsonl: 1 of 61 prompts are states of held-out games, e.g. line 62"):
        check(planted, 1)
    check(replace(planted, games=replace(planted.games, held_out=3)), 1)  # of games 0 to 2 there are none
    assert not Path(config.out).exists()


def test_every_manifest_names_the_pack(config: RunConfig, cache: Path) -> None:
    run_inprocess(replace(config, cycles=1))
    digest = read_pack(Path(with_pack(config, cache).server.prompts)).digest
    manifests = sorted((Path(config.out) / "versions").glob("*/manifest.json"))
    assert len(manifests) == 2
    assert {json.loads(path.read_text())["prompts"] for path in manifests} == {digest}


def test_a_run_that_is_interrupted_in_a_trial_comes_to_the_same_versions_and_decisions(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run_inprocess(config)
    whole = cycles(config)

    def interrupted(name: str, run: Callable[[RunConfig], None]) -> None:
        stopped = replace(config, out=str(tmp_path / name))
        with pytest.raises(Stopped):
            run(stopped)
        run_inprocess(replace(stopped, resume=True))
        assert cycles(stopped) == whole, name

    def keeps_no_gate(self: Phases, cycle: int, name: str, outcome: Any, keep: Any = Phases.keep) -> None:
        if name == "gate":
            raise Stopped
        keep(self, cycle, name, outcome)

    def after_the_answers(stopped: RunConfig) -> None:
        with monkeypatch.context() as patch:
            patch.setattr(Phases, "keep", keeps_no_gate)
            run_inprocess(stopped)

    interrupted("before-it", lambda stopped: run_inprocess(stopped, stop_at(PhaseStarted, 1, "gate")))
    interrupted("answered", after_the_answers)
    interrupted("after-it", lambda stopped: run_inprocess(stopped, stop_at(PhaseFinished, 1, "teacher")))
    interrupted("next-cycle", lambda stopped: run_inprocess(stopped, stop_at(PhaseStarted, 2, "teacher")))


@pytest.mark.parametrize(
    "strategy", ["trusted", "trusted-trimmed", "trusted-secure", "clustered", "fedoel.strategies.controls:PublicOnly"]
)
def test_strategies_that_need_games_say_so_before_there_is_a_run(config: RunConfig, strategy: str) -> None:
    run = replace(config, strategy=replace(config.strategy, name=strategy))
    for begin in (check, run_inprocess):
        with pytest.raises(ConfigError, match=r'learns from games of its own: set server\.public = "games"'):
            begin(run)
    assert not Path(config.out).exists()


def test_a_context_that_moves_nothing_ends_the_cycle_without_a_trial(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the fleet could be asked in several parts."""

    def asked(*arguments: object) -> None:
        raise AssertionError("there is nothing to try")

    monkeypatch.setattr(ExperienceStrategy, "trial", asked)
    empty = replace(config.strategy, name="fedoel.strategies.controls:Empty")
    run = replace(config, cycles=1, strategy=empty, trial=replace(config.trial, share=0.25))
    run_inprocess(run)
    assert cycles(run)[-1]["decision"] == "no-gain"


@pytest.fixture
def in_free_text(config: RunConfig, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    # A random model names no place: here every other answer does.
    monkeypatch.setattr(
        asking, "place_named", lambda answer, thing, places: places[ord(answer[0]) % 4] if ord(answer[-1]) % 2 else ""
    )
    return RunConfig.from_flat({
        **config.to_flat(), "cycles": 1, "games.families": "tidy things=1 open=1 turns=2", "codec.name": "embedding",
        "policy.backend": "torch", "policy.base": str(tiny_base), "policy.decoding": "free", "policy.listed": False,
        "policy.response-tokens": 3, "policy.threads": 1, "policy.lora-layers": 2, "strategy.name": "secure-mean",
        "warm-start.steps": 2, "distil.steps": 2, "distil.batch": 4, "trial.contexts": False,
    })  # fmt: skip


def test_answers_in_free_text_are_learned_from_in_secure_sums(in_free_text: RunConfig, tmp_path: Path) -> None:
    run = in_free_text
    run_inprocess(run)
    last = cycles(run)[-1]
    assert 0 < last["held_out"]["invalid"] <= 1
    assert last["views"]["without_context"] >= 0
    assert last["kl"] > 0
    run_inprocess(replace(run, out=str(tmp_path / "again")))
    assert cycles(replace(run, out=str(tmp_path / "again")))[-1] == last


def test_a_version_that_never_comes_to_an_end_reaches_no_device(
    in_free_text: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nobody(*arguments: object) -> None:
        raise AssertionError("no device may be asked to try such a candidate")

    monkeypatch.setattr(ExperienceStrategy, "trial", nobody)
    run = replace(in_free_text, server=replace(in_free_text.server, max_invalid=0.5, max_base_kl=0))
    run_inprocess(run)
    last = cycles(run)[-1]
    assert last["decision"] == "rejected" and "are invalid, and server.max-invalid is 0.5" in last["reason"]
    place = RunLocation(Path(run.out), Path(run.out) / "keys")
    refused = VersionList(place).versions[-1].name
    with pytest.raises(VersionError, match=r"unfit answers to public prompts: .*; add --anyway if that is meant"):
        promote(place, refused)
    run_inprocess(replace(run, resume=True))
    assert cycles(run)[-1] == last
    assert promote(place, refused, anyway=True).values["version"] == refused


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"trial.games": 5}, r"trial\.games 5 is more than games\.per-client 4"),
        ({"policy.decoding": "free", "policy.backend": "torch"}, r"policy\.decoding|free"),
        ({"server.max-invalid": 0.1}, r"server\.max-invalid is about what a policy writes"),
        (
            {
                "server.baseline": "fleet",
                "strategy.name": "secure-mean",
                "privacy.mechanism": "distributed",
                "privacy.epsilon": 100.0,
            },
            r'server\.baseline "fleet" needs counters',
        ),
        ({"server.prompts": "/nowhere.jsonl"}, r"/nowhere\.jsonl cannot be read"),
    ],
)
def test_what_a_server_with_prompts_cannot_do_is_refused_before_there_is_a_run(
    config: RunConfig, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        run_inprocess(RunConfig.from_flat({**config.to_flat(), **changes}))
    assert not Path(config.out).exists()
