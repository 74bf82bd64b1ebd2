"""What is built in passes the checks for plug-ins, and planted bugs are found by the check that is meant for them."""

from __future__ import annotations

import itertools
import random
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from fedoel.cli.main import main
from fedoel.codecs.tactics.encoder import TacticsEncoder
from fedoel.codecs.tactics.policy import TacticsBackend, TacticsPolicy
from fedoel.games.families import Family, Number, Rule, Word
from fedoel.games.game import Frame
from fedoel.games.grid.frozen_lake import FrozenLakeEngine
from fedoel.protocol.errors import ConfigError, VectorError
from fedoel.protocol.experience import Aggregate, Contribution, total
from fedoel.server.tactics_learner import TacticsLearner
from fedoel.simulations.conformance.checks import FAILED, PASSED, SKIPPED, Outcome, run_checks
from fedoel.simulations.conformance.plugin import check_plugin, kind_of
from fedoel.strategies.mean import Mean
from fedoel.strategies.registry import BUILT_IN

Contributions = Sequence[Contribution]


def results(outcomes: Sequence[Outcome], result: str) -> list[str]:
    return [f"{outcome.claim}: {outcome.reason}" for outcome in outcomes if outcome.result == result]


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_strategies_pass(name: str) -> None:
    assert results(check_plugin(name, "strategy")[1], FAILED) == []


@pytest.mark.parametrize("name", ["tactics", "embedding", "tactics-text", "prefix", "steering", "text", "raw"])
def test_built_in_codecs_pass(name: str) -> None:
    outcomes = check_plugin(name, "codec")[1]
    assert results(outcomes, FAILED) == []
    assert len(results(outcomes, SKIPPED)) == {"tactics": 0, "embedding": 1}.get(name, 7)


@pytest.mark.parametrize(
    ("name", "kind"),
    [("tactics", "policy"), ("torch", "policy"), ("frozen-lake", "game"), ("assistant", "game")],
)
def test_other_built_in_things_pass(name: str, kind: str) -> None:
    assert results(check_plugin(name, kind)[1], FAILED) == []


# Strategies with a bug


class Averages(Mean):
    def aggregate(self, contributions: Contributions) -> Aggregate:
        whole, n = super().aggregate(contributions), len(contributions)
        g, f = ((part / n).astype(np.float32) for part in (whole.vector.gradient, whole.vector.fisher))
        vector = replace(whole.vector, gradient=g, fisher=f)
        return replace(whole, vector=vector)


class Scribbles(Mean):
    def aggregate(self, contributions: Contributions) -> Aggregate:
        for each in contributions:
            each.vector.gradient[0] = 0.0
        return super().aggregate(contributions)


class Gambles(Mean):
    def aggregate(self, contributions: Contributions) -> Aggregate:
        chosen = [each for each in contributions if random.random() < 0.7] or list(contributions)
        return Aggregate(total(each.vector for each in chosen), len(chosen))


class Favours(Mean):
    def aggregate(self, contributions: Contributions) -> Aggregate:
        chosen = sorted(contributions, key=lambda each: each.node_id)[: len(contributions) // 2 + 1]
        return Aggregate(total(each.vector for each in chosen), len(chosen))


class Lonely(Mean):
    def aggregate(self, contributions: Contributions) -> Aggregate:
        assert len(contributions) > 1
        return super().aggregate(contributions)


class Divides(Mean):
    def aggregate(self, contributions: Contributions) -> Aggregate:
        whole = super().aggregate(contributions)
        with np.errstate(all="ignore"):
            return replace(whole, vector=replace(whole.vector, gradient=whole.vector.gradient / np.float32(0)))


class Forgets(Mean):
    def __init__(self, *arguments: Any, beta: float = 0.1, **settings: Any) -> None:
        super().__init__(*arguments, **settings)


# Codecs with a bug


class Downhill(TacticsEncoder):
    def gradient_and_fisher(self, policy: Any, turns: Any, advantages: Any) -> Any:
        gradient, fisher = super().gradient_and_fisher(policy, turns, advantages)
        return -gradient, fisher


class Negative(TacticsEncoder):
    def gradient_and_fisher(self, policy: Any, turns: Any, advantages: Any) -> Any:
        gradient, fisher = super().gradient_and_fisher(policy, turns, advantages)
        return gradient, -fisher


class Normalises(TacticsEncoder):
    def gradient_and_fisher(self, policy: Any, turns: Any, advantages: Any) -> Any:
        gradient, fisher = super().gradient_and_fisher(policy, turns, advantages)
        return gradient / max(1e-9, float(np.linalg.norm(gradient))), fisher


class Shifts(TacticsEncoder):
    def apply_context(self, policy: Any, context: Any) -> Any:
        return super().apply_context(policy, context + np.arange(len(context), dtype=np.float32) % 7)


class Doubles(TacticsEncoder):
    def apply_context(self, policy: Any, context: Any) -> Any:
        return super().apply_context(policy, 2 * context)


class Understates(TacticsEncoder):
    is_additive = False


class Abler(TacticsEncoder):
    required_abilities = frozenset({"magic"})


# Games with a bug


class Lazy(FrozenLakeEngine):
    def walkthrough(self) -> tuple[str, ...] | None:
        return None


class Unseeded(FrozenLakeEngine):
    starts = itertools.count()

    def start(self, seed: int) -> Frame:
        frame = super().start(seed)
        return replace(frame, text=f"{frame.text}\nDay {next(self.starts)}.")


class Stuck(FrozenLakeEngine):
    def start(self, seed: int) -> Frame:
        return super().start(1)


class Wordless(FrozenLakeEngine):
    def act(self, command: str) -> Frame:
        return replace(super().act(command), text=" ")


class Twice(FrozenLakeEngine):
    def start(self, seed: int) -> Frame:
        frame = super().start(seed)
        return replace(frame, admissible=(*frame.admissible, frame.admissible[0]))


class Sticky(FrozenLakeEngine):
    count = 0

    def start(self, seed: int) -> Frame:
        type(self).count += 1
        return replace(super().start(seed), goal=f"Cross, for the {self.count}. time.")


def family(engine: type[FrozenLakeEngine]) -> Family:
    rules: dict[str, Rule] = {
        "size": Number(3, 5, default=3),
        "holes": Number(0, 16, default=0),
        "split": Word(("all",), "all"),
    }
    return Family(rules, lambda name, settings, cache: engine(settings))


# Policies with a bug


class Unnormalised(TacticsBackend):
    def load(self, config: Any, adapter: Any, version: str, cache: Path) -> Any:
        inner = super().load(config, adapter, version, cache)
        policy = ModuleType("policy")
        vars(policy).update(version=version, tokens=inner.tokens, score=lambda s: [x + 0.5 for x in inner.score(s)])
        return policy

    def learner(self, config: Any, cache: Path) -> Any:
        return TacticsLearner()


class Renamed(TacticsBackend):
    def load(self, config: Any, adapter: Any, version: str, cache: Path) -> Any:
        return TacticsPolicy.from_adapter(adapter, "mine")

    def learner(self, config: Any, cache: Path) -> Any:
        return TacticsLearner()


class Deaf(TacticsBackend):
    def learner(self, config: Any, cache: Path) -> Any:
        learner = TacticsLearner()
        learner.distil = lambda adapter, task, advance: TacticsLearner.distil(  # type: ignore[method-assign]
            learner, adapter, replace(task, context=replace(task.context, weights=0 * task.context.weights)), advance
        )
        return learner


class Wide(TacticsBackend):
    def load(self, config: Any, adapter: Any, version: str, cache: Path) -> Any:
        return TacticsPolicy.from_adapter({"weights": adapter["weights"].astype(np.float32)}, version)

    def learner(self, config: Any, cache: Path) -> Any:
        learner = TacticsLearner()
        learner.warm_start = lambda turns, advance: {"weights": np.zeros(324)}  # type: ignore[method-assign]
        return learner


BUGS: dict[str, tuple[Any, str, str]] = {
    "Averages": (Averages, "strategy", "is it a mean"),
    "Scribbles": (Scribbles, "strategy", "modified in place"),
    "Gambles": (Gambles, "strategy", "the second aggregate differs"),
    "Favours": (Favours, "strategy", "other node ids gave another aggregate"),
    "Lonely": (Lonely, "strategy", "A single contribution"),
    "Divides": (Divides, "strategy", "the aggregate is not finite"),
    "Forgets": (Forgets, "strategy", "option beta is not kept"),
    "Downhill": (Downhill(), "codec", "is its sign wrong"),
    "Negative": (Negative(), "codec", "the Fisher diagonal is negative"),
    "Normalises": (Normalises(), "codec", "not that of its parts"),
    "Shifts": (Shifts(), "codec", "the zero context changes"),
    "Doubles": (Doubles(), "codec", "does not add the offsets"),
    "Understates": (Understates(), "codec", "is_additive is False"),
    "Abler": (Abler(), "codec", "requires {'magic'}"),
    "Lazy": (family(Lazy), "game", "has no walkthrough"),
    "Unseeded": (family(Unseeded), "game", "the same seed gave another transcript"),
    "Stuck": (family(Stuck), "game", "all gave the same transcript"),
    "Wordless": (family(Wordless), "game", "shows an empty text"),
    "Twice": (family(Twice), "game", "listed twice"),
    "Sticky": (family(Sticky), "game", "does not restore the initial state"),
    "Unnormalised": (Unnormalised, "policy", "do not add up to one"),
    "Renamed": (Renamed, "policy", "and the device 'mine'"),
    "Deaf": (Deaf, "policy", "mean KL to the teacher"),
    "Wide": (Wide, "policy", "is float64, not float16 or float32"),
}


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> str:
    """A module that holds the plug-ins above, so that a run finds them by name."""
    import sys

    module = ModuleType("planted_bugs")
    vars(module).update({name: plugin for name, (plugin, _, _) in BUGS.items()})
    monkeypatch.setitem(sys.modules, "planted_bugs", module)
    return "planted_bugs"


@pytest.mark.parametrize("name", BUGS)
def test_planted_bugs_are_found(name: str, planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, kind, said = BUGS[name]
    monkeypatch.setattr(f"fedoel.simulations.conformance.{kind}.go_through_a_run", lambda **settings: None)
    found, outcomes = check_plugin(f"{planted}:{name}")
    assert found == kind
    assert any(said in line for line in results(outcomes, FAILED)), [str(outcome) for outcome in outcomes]


def test_a_strategy_that_gambles_is_found_in_a_run_too(planted: str) -> None:
    *_, run, trials = check_plugin(f"{planted}:Gambles")[1]
    assert (run.result, "another aggregate the second time" in run.reason) == (FAILED, True)
    assert trials.result == PASSED


def test_a_strategy_that_has_no_use_for_trials_is_found(planted: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuses(self: Any, contributions: Any, cycle: int) -> None:
        raise VectorError("no")

    monkeypatch.setattr(sys.modules[planted].Gambles, "aggregate_trial", refuses)
    last = check_plugin(f"{planted}:Gambles")[1][-1]
    assert (last.result, "no answer was used" in last.reason) == (FAILED, True)


def test_the_command_says_what_failed_and_exits_with_one(
    planted: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("fedoel.simulations.conformance.strategy.go_through_a_run", lambda **settings: None)
    assert main(["check-plugin", f"{planted}:Averages"]) == 1
    said = capsys.readouterr().out
    assert said.startswith("planted_bugs:Averages is a strategy\n") and "  FAIL  If all devices send" in said
    assert said.endswith("8 passed, 1 failed, 0 skipped\n")
    assert main(["check-plugin", f"{planted}:Nothing"]) == 2


@pytest.mark.parametrize("name", ["json:dumps", "nowhere:Mine", "nobody-has-this"])
def test_what_is_no_plugin_is_refused(name: str) -> None:
    with pytest.raises(ConfigError):
        kind_of(name)


def test_a_plugin_that_exits_has_failed_and_the_other_checks_go_on() -> None:
    def leaves(plugin: object) -> None:
        """It stays"""
        raise SystemExit(0)

    found = run_checks([leaves, lambda plugin: None], None)
    assert [(outcome.result, outcome.reason) for outcome in found] == [(FAILED, "SystemExit: 0"), (PASSED, "")]
