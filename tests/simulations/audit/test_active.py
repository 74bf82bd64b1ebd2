"""The audit's attacks by a server that cheats get nothing from honest devices, and a vector without the check."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from fedoel.cli.main import main
from fedoel.client import secure as client_secure
from fedoel.client.device.record import DeviceRecord
from fedoel.protocol.config import Scalar
from fedoel.protocol.errors import SecureSumError
from fedoel.protocol.fleet.trust import Trust
from fedoel.protocol.messages import PlayRequest
from fedoel.protocol.privacy.plan import PrivacyPlan
from fedoel.protocol.secagg import device, graph, terms
from fedoel.protocol.secagg.graph import Graph
from fedoel.protocol.secagg.keys import Advert
from fedoel.protocol.secagg.messages import exchange_of
from fedoel.simulations.audit import active, hidden, hostile
from fedoel.simulations.audit.active import determined
from fedoel.simulations.audit.against import against, fewest_honest
from fedoel.simulations.audit.target import ActiveAttack, Target
from fedoel.simulations.grid import server_identity
from fedoel.simulations.scenario import FOLDER as SCENARIOS
from fedoel.simulations.scenario import load_scenario
from fedoel.strategies.secure_groups import SecureGroups
from fedoel.strategies.secure_mean import SecureMean

Settings = dict[str, Scalar]
PLAIN: Settings = {"privacy.mechanism": "none", "privacy.epsilon": 0.0}
GROUPS: Settings = {**PLAIN, "strategy.name": "grouped-secure", "strategy.options": "group-size=3", "clients": 12}
LOCAL: Settings = {"privacy.mechanism": "local", "strategy.name": "local-mean"}
EVERYBODY: Settings = {"strategy.fraction-train": 1.0}


def target(folder: Path, changed: Settings | None = None, settings: Trust | None = None) -> Target:
    overrides: Settings = {"clients": 60, "strategy.fraction-train": 0.1, **(changed or {})}
    return Target(load_scenario("private", overrides), folder, settings)


def results(attacked: Any, target: Target) -> list[ActiveAttack]:
    with server_identity():
        return list(attacked(target))


def nothing(*_: Any, **__: Any) -> None:
    """Check nothing."""


@pytest.mark.parametrize("devices", [6, 9])
def test_two_sets_of_survivors(devices: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    settings: Settings = {**PLAIN, "strategy.fraction-train": devices / 60}
    held = results(active.two_sets_of_survivors, target(tmp_path / "1", settings))
    assert not any(made.recovered for made in held) and len(held) == 2
    assert "refused with SecureSumError" in held[1].outcome
    monkeypatch.setattr(device, "check_graph", nothing)
    [safe, broken] = results(active.two_sets_of_survivors, target(tmp_path / "2", settings))
    assert not safe.recovered and broken.broken and broken.outcome == "a device's vector was recovered"


def test_a_cohort_that_is_made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = results(active.phantom_cohort, target(tmp_path / "1"))
    assert [(made.recovered, made.promised) for made in held] == [
        (False, True), (False, True), (True, False), (False, True)
    ]  # fmt: skip
    assert held[3].outcome == "refused with TooManyStrangers"
    monkeypatch.setattr(Trust, "check_known", nothing)
    monkeypatch.setattr(Advert, "check", nothing)
    assert [made.broken for made in results(active.phantom_cohort, target(tmp_path / "2"))] == [
        False,
        True,
        False,
        True,
    ]


def test_a_request_sent_as_another_verb(tmp_path: Path) -> None:
    [held] = results(active.verb_confusion, target(tmp_path / "1"))
    assert not held.recovered and held.outcome == "refused with VerbRefused"
    [broken] = results(active.verb_confusion, target(tmp_path / "2", settings=Trust()))
    assert broken.broken


def test_the_size_of_a_cohort(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [held] = results(active.exact_counts, target(tmp_path))
    assert not held.recovered and "are published as 6 and 6" in held.outcome
    original = SecureMean.published

    def exact(strategy: Any, parts: Any, plan: Any, devices: int, spec: Any) -> Any:
        return replace(original(strategy, parts, plan, devices, spec), cohort=devices)

    monkeypatch.setattr(SecureMean, "published", exact)
    [broken] = results(active.exact_counts, target(tmp_path))
    assert broken.broken


def test_a_vector_with_too_little_noise(tmp_path: Path) -> None:
    held = results(active.local_without_noise, target(tmp_path / "1", LOCAL))
    assert [made.recovered for made in held] == [False] * 3
    assert "TooLittleNoise" in held[0].outcome and held[2].outcome.startswith("1 of 20 answers")
    broken = results(active.local_without_noise, target(tmp_path / "2", LOCAL, Trust()))
    assert [made.broken for made in broken] == [True, True, False], "answers to one request are the record's"
    [other] = results(active.local_without_noise, target(tmp_path / "3"))
    assert "does not apply" in other.outcome


def test_answers_to_one_request(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("check", "add"):
        monkeypatch.setattr(DeviceRecord, name, nothing)
    assert results(active.local_without_noise, target(tmp_path, LOCAL))[2].broken


@pytest.mark.parametrize("settings", [{}, PLAIN])
def test_one_exchange_asked_for_twice(settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [held] = results(active.replay, target(tmp_path / "1", settings))
    assert not held.recovered and "AlreadyContributed" in held.outcome
    for name in ("begin", "check_current", "check", "add", "confirm"):
        monkeypatch.setattr(DeviceRecord, name, nothing)
    [broken] = results(active.replay, target(tmp_path / "2", settings))
    assert broken.broken


def test_another_request_for_everybody_but_the_victim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [held] = results(active.two_requests, target(tmp_path / "1"))
    assert not held.recovered and "SecureSumError" in held.outcome

    def without_request(request: PlayRequest, plan: PrivacyPlan) -> str:
        return f"{request.spec.digest} {plan.digest} {exchange_of(request)}"

    for module in (client_secure, hostile):
        monkeypatch.setattr(module, "subject", without_request)
    [broken] = results(active.two_requests, target(tmp_path / "2"))
    assert broken.broken


def only_as_the_terms_say(graph: Graph, cohort: int, others: int) -> int:
    """Pick as many neighbours as the terms say, or all that are shown."""
    return min(graph.neighbours, others)


def test_keys_that_are_hidden(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many, so that 37 devices have to be run for the second cohort and not 76."""
    many = Trust(colluding=0.6, verbs="masked")
    held = results(hidden.hidden_keys, target(tmp_path / "1", PLAIN, many))
    assert [(made.recovered, made.promised) for made in held] == [(False, True), (False, True)]
    assert held[0].outcome == "refused with SecureSumError"
    for module in (terms, graph):
        monkeypatch.setattr(module, "count_picks", only_as_the_terms_say)
    assert [made.broken for made in results(hidden.hidden_keys, target(tmp_path / "2", PLAIN, many))] == [False, True]
    monkeypatch.setattr(graph, "least_minimum", lambda *of: 2)
    monkeypatch.setattr(hidden, "MOST", 60)
    [alone, other] = results(hidden.hidden_keys, target(tmp_path / "3", PLAIN, many))
    assert alone.broken and "no such cohort of 60 devices or less" in other.outcome


@pytest.mark.parametrize("share", [1 / 3, 0.4, 0.6])
def test_cohorts_in_which_keys_are_hidden(share: float) -> None:
    """All that are shown collude, or half of them; a device's terms allow both graphs."""
    few, half = hidden._all_hidden(share, 2), hidden._half_hidden(share, 2)
    assert few and few.honest == 1 and few.graph.threshold == few.graph.neighbours <= few.colluding
    assert half and half.honest + half.colluding == half.graph.neighbours + 1 < half.cohort
    assert half.colluding / half.graph.neighbours > share
    for hiding in (few, half):
        least = graph.least_minimum(hiding.graph, hiding.cohort, share)
        graph.check_graph(hiding.graph, hiding.cohort, least, share)
    with pytest.raises(SecureSumError, match="too few for a threshold"):
        graph.count_picks(few.graph, few.cohort, few.colluding)
    assert graph.count_picks(half.graph, half.cohort, half.graph.neighbours) < half.graph.neighbours
    more = hidden._half_hidden(share, half.graph.neighbours + 10)
    assert more and more.graph.neighbours >= half.graph.neighbours + 10


def test_groups_of_three_across_cycles(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [held] = results(active.groups_across_cycles, target(tmp_path, GROUPS | EVERYBODY))
    assert not held.recovered and "0 of 12" in held.outcome
    some: Settings = {**GROUPS, "strategy.fraction-train": 0.75, "cycles": 12}
    [drawn] = results(active.groups_across_cycles, target(tmp_path, some))
    assert drawn.recovered and not drawn.promised, "the strategy does not promise it where cohorts differ"
    deal = np.random.default_rng(0).permutation
    monkeypatch.setattr(SecureGroups, "groups", lambda _, cohort: np.split(deal(cohort), 4))
    [dealt] = results(active.groups_across_cycles, target(tmp_path, GROUPS | EVERYBODY | {"cycles": 8}))
    assert dealt.broken
    [noisy] = results(active.groups_across_cycles, target(tmp_path))
    assert "does not apply" in noisy.outcome


def test_unknowns_that_sums_determine() -> None:
    assert determined(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 0.0]])) == 0
    assert determined(np.array([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])) == 1
    assert determined(np.array([[1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])) == 3


def test_in_a_plain_run_the_server_sees_each_vector(tmp_path: Path) -> None:
    plain = target(tmp_path, PLAIN | {"strategy.name": "mean"})
    made = active.attack(plain)
    assert all("does not apply" in one.outcome and not one.broken for one in made)
    sees = {line.who: line.sees for line in against(plain, made)}
    assert sees["a curious server"] == "the vector of each device"


def test_against_whom_promises_hold(tmp_path: Path) -> None:
    attacked = target(tmp_path)
    sees = {line.who: line.sees for line in against(attacked, [])}
    assert "without sampling" in sees["a curious server"]
    assert "noise multiplier" in sees["a server that cheats, with all keys of the fleet"]
    lines = list(against(attacked, [ActiveAttack("verbs", "a vector", recovered=True)]))
    assert [line.sees for line in lines].count("more than was promised: verbs") == 2


def test_the_fewest_honest_devices_of_a_sum() -> None:
    assert [fewest_honest(Trust(least_cohort=least)) for least in (2, 8)] == [2, 5]
    assert fewest_honest(Trust(colluding=0.0, least_cohort=8)) == 8


def test_the_card_of_a_run_without_noise_has_the_active_attacks(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hidden, "MOST", 100)  # the larger cohort takes seconds, and has a test of its own
    quick = (SCENARIOS / "quick.toml").read_text(encoding="utf-8")
    scenario = tmp_path / "one-exchange.toml"  # of eight devices: of four, each is everybody's neighbour anyway
    scenario.write_text(quick.replace("exchanges = 2", "exchanges = 1"), encoding="utf-8")
    assert main(["audit", str(scenario), "--out", str(tmp_path / "card")]) == 0
    said = capsys.readouterr().out
    assert "refused with AlreadyContributed | holds" in said and "## Noise" not in said
    monkeypatch.setattr(device, "check_graph", nothing)
    assert main(["audit", str(scenario), "--out", str(tmp_path / "card")]) == 1
    assert "| BROKEN |" in capsys.readouterr().out
