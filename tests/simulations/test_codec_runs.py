"""Whole cycles with every codec, on a tiny random model: that the parts fit, not that it learns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from examples import verbs
from fedoel.codecs.prefix import DIMENSION
from fedoel.codecs.steering import BLOCKS
from fedoel.codecs.words import encoder as words
from fedoel.games import player
from fedoel.protocol.config import (
    CodecConfig,
    ContextConfig,
    DistilConfig,
    GamesConfig,
    PolicyConfig,
    PrivacyConfig,
    RunConfig,
    ServerConfig,
    StrategyConfig,
    WarmStartConfig,
)
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.records.events import PhaseFinished
from fedoel.server.cycle import search
from fedoel.server.cycle.phases import load_phase
from fedoel.server.public.games import PublicGames
from fedoel.simulations.inprocess import run_inprocess

from .gates import HoldingGate, OpenGate


class NotAdditive(verbs.Verbs):
    """Says that its contexts do more than add offsets."""

    is_additive = False


@pytest.fixture
def config(tiny_base: Path, cache: Path, tmp_path: Path) -> RunConfig:
    return RunConfig(
        clients=2,
        cycles=1,
        cache=str(cache),
        out=str(tmp_path / "run"),
        games=GamesConfig("frozen-lake turns=6", "iid", per_client=8, rehearsal=6, gate=4, held_out=4),
        policy=PolicyConfig(base=str(tiny_base), device="cpu", threads=1, lora_layers=2, lora_rank=4),
        codec=CodecConfig(name="prefix"),
        context=ContextConfig(max_kl=0.02),
        strategy=StrategyConfig(exchanges=2),
        distil=DistilConfig(steps=2, batch=4),
        warm_start=WarmStartConfig(steps=40, batch=8, learning_rate=1e-2),
        server=ServerConfig("games", max_base_kl=0),  # a model of noise is soon far from itself
    )


def summary(out: Path) -> list[dict[str, Any]]:
    entries: list[dict[str, Any]] = json.loads((out / "summary.json").read_text())["cycles"]
    return [{key: value for key, value in entry.items() if key != "seconds"} for entry in entries]


@pytest.mark.parametrize("name", ["prefix", "steering"])
def test_a_cycle_inside_the_model_repeats_and_stays_in_its_trust_region(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    config = replace(config, codec=CodecConfig(name=name), distil=replace(config.distil, retention=0.5))
    run_inprocess(config, make_gate=OpenGate)
    last = summary(Path(config.out))[-1]
    assert (last["decision"], last["accepted"], last["lessons"]) == ("promoted", 2, [])
    assert set(last["views"]) == {"without_context", "with_context"}
    assert 0 < last["uplink_bytes"] <= 4096
    # Two steps of 0.02 nats, the second from where the first ended: no further than four times one of them. A control
    # vector is one step alone, or half of it.
    assert (0.002 < last["kl"] <= 0.02) if name == "steering" else (0.005 < last["kl"] < 0.1)
    with np.load(Path(config.out) / "checkpoints" / "cycle-001" / "context-2.npz") as kept:
        assert np.count_nonzero(kept["weights"]) > DIMENSION / 2
    run_inprocess(replace(config, out=str(tmp_path / "again")), make_gate=OpenGate)
    assert summary(tmp_path / "again") == summary(Path(config.out))


class Stopped(Exception):
    """Stands for a process that is killed."""


def test_a_cycle_with_embeddings_repeats_and_resumes(config: RunConfig, tmp_path: Path) -> None:
    config = replace(
        config, codec=CodecConfig("embedding"), context=ContextConfig(max_kl=0.3),
        distil=replace(config.distil, retention=0.5), strategy=StrategyConfig("secure-mean", exchanges=2),
        clients=6, games=replace(config.games, per_client=2), privacy=PrivacyConfig(colluding=0.1),
    )  # fmt: skip
    run_inprocess(config, make_gate=OpenGate)
    whole = summary(Path(config.out))
    last = whole[-1]
    assert (last["decision"], last["accepted"]) == ("promoted", 6)
    assert 0 < last["kl"] < 2
    assert all(" -> " in lesson["tactic"] for lesson in last["lessons"])
    matrix = load_phase(Path(config.out), 0, "codec").arrays["whitening"]
    assert matrix.shape == (32, 64)
    for number, phase in enumerate(("codec", "context", "lessons")):

        def stop(event: Any, phase: str = phase) -> None:
            if isinstance(event, PhaseFinished) and event.phase == phase:
                raise Stopped

        stopped = replace(config, out=str(tmp_path / f"stopped-{number}"))
        with pytest.raises(Stopped):
            run_inprocess(stopped, stop, make_gate=OpenGate)
        run_inprocess(replace(stopped, resume=True), make_gate=OpenGate)
        assert summary(Path(stopped.out)) == whole, phase


def test_a_control_vector_is_chosen_on_the_games_of_the_gate_alone(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    purposes: list[str] = []
    mixed, choose = PublicGames.play_mixture, search._choose

    def watched(
        self: PublicGames, policies: Any, contexts: Any, games: Any, purpose: str, *rest: Any, **named: Any
    ) -> Any:
        purposes.append(purpose)
        return mixed(self, policies, contexts, games, purpose, *rest, **named)

    def choosing(*arguments: Any) -> Any:
        monkeypatch.setattr(PublicGames, "play_mixture", watched)
        try:
            return choose(*arguments)
        finally:
            monkeypatch.setattr(PublicGames, "play_mixture", mixed)

    monkeypatch.setattr(search, "_choose", choosing)
    steering = replace(config, codec=CodecConfig(name="steering"), strategy=StrategyConfig())
    run_inprocess(steering, make_gate=HoldingGate)
    first, last = summary(Path(config.out))
    choices = last["choices"]
    assert purposes == ["gate"] * len(choices) == ["gate"] * 2 * len(BLOCKS)
    merits = [choice["merit"] for choice in choices]
    assert merits == sorted(merits, reverse=True)
    assert f"({choices[0]['name']}, the best of {len(choices)})" in last["reason"]
    assert last["kl"] == choices[0]["kl"]
    assert first["choices"] == []


def test_a_cycle_with_tactics_in_words(config: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    run_inprocess(
        replace(config, codec=CodecConfig(name="tactics-text"), context=ContextConfig(max_kl=0.3)), make_gate=OpenGate
    )
    last = summary(Path(config.out))[-1]
    assert (last["decision"], last["accepted"]) == ("promoted", 2)
    assert last["lessons"]
    assert set(last["views"]) == {"without_context", "with_context"}


@pytest.mark.parametrize("name", ["text", "raw"])
def test_a_cycle_with_words(config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(words, "lessons", lambda answer: [f"lesson {answer!r}"])  # a random model writes none
    config = replace(
        config, codec=CodecConfig(name=name), strategy=StrategyConfig(), privacy=PrivacyConfig(allow_plaintext=True),
        context=ContextConfig(lists=3, longest=400),
    )  # fmt: skip
    run_inprocess(config, make_gate=OpenGate)
    whole = json.loads((Path(config.out) / "summary.json").read_text())
    assert whole["plaintext"] is True
    last = whole["cycles"][-1]
    assert (last["decision"], last["accepted"]) == ("promoted", 2)
    assert bool(last["lessons"]) == (name == "text")
    context = load_phase(Path(config.out), 1, "context").values
    assert 1 < len(context["words"]) <= 3
    head = "Lessons from earlier games:" if name == "text" else "Earlier games:"
    assert all(text.startswith(head) for text in context["words"])


@pytest.mark.parametrize("words_in", [False, True])
def test_words_leave_no_device_unless_the_run_says_so(config: RunConfig, words_in: bool) -> None:
    config = replace(config, codec=CodecConfig(name="text" if words_in else "prefix"))
    config = replace(config, privacy=PrivacyConfig(allow_plaintext=not words_in))
    with pytest.raises(ConfigError, match=r"privacy\.allow-plaintext"):
        run_inprocess(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    "change",
    [{"exchanges": 2}, {"name": "secure-mean"}, {"name": "median"}, {"name": "fedoel.strategies.controls:Empty"}],
    ids=str,
)
def test_words_need_the_plain_strategy(config: RunConfig, change: dict[str, Any]) -> None:
    config = replace(config, codec=CodecConfig(name="text"), privacy=PrivacyConfig(allow_plaintext=True))
    with pytest.raises(ConfigError, match=r"needs strategy\.name 'mean' and strategy\.exchanges 1"):
        run_inprocess(replace(config, strategy=StrategyConfig(**change)))


@pytest.mark.parametrize(("name", "on_policy"), [("prefix", False), ("text", True)])
def test_a_cycle_of_free_text_repeats(
    config: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, on_policy: bool
) -> None:
    monkeypatch.setattr(words, "lessons", lambda answer: [f"lesson {answer!r}"])
    config = replace(
        config, codec=CodecConfig(name=name), strategy=StrategyConfig(),
        privacy=PrivacyConfig(allow_plaintext=name == "text"),
        policy=replace(config.policy, decoding="free", response_tokens=8),
        distil=replace(config.distil, on_policy=on_policy, top_k=8, tail=True, retention=0.5 if on_policy else 0.0),
    )  # fmt: skip
    run_inprocess(config, make_gate=OpenGate)
    first, last = (summary(Path(config.out))[place] for place in (0, -1))
    assert last["decision"] == "promoted"
    assert set(last["views"]) == {"without_context", "with_context", "student_mass", "teacher_mass"}
    assert all(entry["held_out"]["invalid"] > 0 and entry["held_out"]["response_tokens"] > 2 for entry in (first, last))
    run_inprocess(replace(config, out=str(tmp_path / "again")), make_gate=OpenGate)
    assert summary(tmp_path / "again") == summary(Path(config.out))


@pytest.mark.parametrize("on_policy", [True, False])
def test_free_text_and_several_contexts(config: RunConfig, monkeypatch: pytest.MonkeyPatch, on_policy: bool) -> None:
    # A random model writes no admissible command, and other answers cannot be clustered: any answer counts as one here.
    monkeypatch.setattr(player, "_index_of", lambda command, choices: len(command) % len(choices))
    config = replace(
        config, strategy=StrategyConfig("clustered", "min-cluster-size=1"),
        policy=replace(config.policy, decoding="free", response_tokens=4),
        distil=replace(config.distil, on_policy=on_policy, top_k=8, tail=True, retention=0.5 if on_policy else 0.0),
    )  # fmt: skip
    run_inprocess(config, make_gate=OpenGate)
    assert (Path(config.out) / "checkpoints" / "cycle-001" / "context-part-2.npz").exists()
    last = summary(Path(config.out))[-1]
    assert last["decision"] == "promoted"
    assert last["views"]["with_context"] > 0


@pytest.mark.parametrize(("adds", "retention"), [(True, 0.5), (False, 0.0)])
def test_a_context_that_works_on_answers_from_outside(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch, adds: bool, retention: float
) -> None:
    monkeypatch.setattr(verbs, "MINE", verbs.Verbs() if adds else NotAdditive(), raising=False)
    # Commands with several verbs, for weights of verbs to tell them apart; looked at before anything is learned.
    config = replace(config, games=replace(config.games, families="tidy things=1 final=0 turns=6"))
    distil = replace(config.distil, retention=retention, steps=1)
    run_inprocess(replace(config, codec=CodecConfig(name="examples.verbs:MINE"), distil=distil), make_gate=OpenGate)
    last = summary(Path(config.out))[-1]
    assert last["decision"] == "promoted"
    assert set(last["views"]) == {"without_context", "with_context"}
    # The student with the context starts out as the teacher, while without it is as far as the context leads.
    assert abs(last["views"]["with_context"]) < 1e-5 < last["views"]["without_context"]


def test_retention_of_a_context_that_works_on_answers_from_outside_and_does_more_than_add_is_refused(
    config: RunConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verbs, "MINE", NotAdditive(), raising=False)
    config = replace(config, codec=CodecConfig(name="examples.verbs:MINE"), distil=DistilConfig(retention=0.5))
    with pytest.raises(ConfigError, match=r"needs distil\.retention 0"):
        run_inprocess(config)
    assert not Path(config.out).exists()


@pytest.mark.parametrize(
    "change",
    [{"codec": CodecConfig(name=name)} for name in ("tactics", "examples.verbs:Verbs")]
    + [{"policy": PolicyConfig(backend="tactics")}],
    ids=str,
)
def test_free_decoding_needs_a_teacher_that_writes(config: RunConfig, change: dict[str, Any]) -> None:
    config = replace(config, **change)
    with pytest.raises(ConfigError, match=r"policy\.decoding 'free' needs|codec\.name 'prefix' needs"):
        run_inprocess(replace(config, policy=replace(config.policy, decoding="free")))


def test_what_a_soft_prompt_cannot_do_is_refused(config: RunConfig) -> None:
    with pytest.raises(ConfigError, match=r"codec\.name 'prefix' needs"):
        run_inprocess(replace(config, policy=PolicyConfig(backend="tactics")))
    assert not Path(config.out).exists()
