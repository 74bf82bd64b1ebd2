"""Experiments: arms and seeds in, one table and figure out; what is finished is not run again."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
from numpy.typing import NDArray

from fedoel.cli.main import REFUSED, main
from fedoel.codecs.tactics.coordinates import DIMENSION
from fedoel.policies.model_files import find_model
from fedoel.protocol.config import RunConfig
from fedoel.protocol.errors import ConfigError
from fedoel.protocol.experience import Aggregate, ExperienceVector, VectorSpec
from fedoel.protocol.records.events import PhaseStarted
from fedoel.server.cycle.phases import load_phase
from fedoel.server.events import read_events
from fedoel.simulations.baselines import baseline
from fedoel.simulations.experiment import BUILT_IN, FOLDER, load_experiment, read_results, run_experiment
from fedoel.simulations.experiment_table import arms_table, spread
from fedoel.simulations.inprocess import check
from fedoel.simulations.lent import Lent

SMALL = """
question = "Does experience help?"
scenario = "quick"
seeds = [0, 1]

[settings]
clients = 3
"strategy.exchanges" = 1
cycles = 1
"games.families" = "frozen-lake turns=6"
"games.rehearsal" = 4
"games.gate" = 6
"games.held-out" = 8
"policy.backend" = "tactics"
"server.public" = "games"

[arms.tactics]

[arms.none]
"strategy.name" = "fedoel.strategies.controls:Empty"
"""


@pytest.fixture
def small(tmp_path: Path) -> Path:
    path = tmp_path / "small.toml"
    path.write_text(SMALL)
    return path


def test_an_experiment_writes_what_its_arms_came_to_and_is_not_run_twice(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    assert main(["experiment", str(small), "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert "Does experience help?" in said and "| none |" in said
    results = read_results(out / "results.json")
    assert {arm: [run.seed for run in runs] for arm, runs in results.items()} == {"tactics": [0, 1], "none": [0, 1]}
    assert all(run.cycles[1].decision == "no-gain" for run in results["none"])
    table = (out / "table.md").read_text()
    assert "`fedoel experiment small --seeds 0,1`" in table
    assert arms_table(results) in table
    assert all((out / name).stat().st_size > 1000 for name in ("arms.png", "arms.svg"))

    def refuse(*_: object) -> None:
        raise AssertionError("a finished run was started again")

    events = read_events(out / "runs" / "none-1" / "events.jsonl")
    phases = [event.phase for event in events if isinstance(event, PhaseStarted)]
    assert "teacher" in phases and "floors" not in phases  # what both arms begin with was done once, and is the same
    begun, copied = (results[arm][1].cycles[0] for arm in ("tactics", "none"))
    assert begun.held_out == copied.held_out and begun.version == copied.version

    monkeypatch.setattr(baseline, "run_inprocess", refuse)
    assert run_experiment(load_experiment(str(small)), out) == results


def test_arms_whose_servers_have_another_world_do_not_begin_alike(small: Path, tmp_path: Path) -> None:
    """What a gate of public games has seen is of no use to one that asks the fleet, and the other way round."""
    small.write_text(SMALL.replace("[arms.none]", '[arms.prompts]\n"server.public" = "prompts"\n\n[arms.none]'))
    results = run_experiment(load_experiment(str(small), seeds="0"), tmp_path / "out")
    assert [len(runs[0].cycles) for runs in results.values()] == [2, 2, 2]


def test_an_experiment_with_worlds_makes_every_arm_in_each_and_one_table_of_all(
    small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lands = '[worlds.orchard]\n"games.families" = "orchard turns=3"\n[worlds."the lake, frozen"]\n'
    small.write_text(SMALL.replace("[arms.tactics]", f"{lands}[arms.tactics]", 1))
    out = tmp_path / "out"
    chosen = "orchard: tactics,orchard: none,the lake, frozen: tactics"
    assert main(["experiment", str(small), "--out", str(out), "--seeds", "0", "--arms", chosen]) == 0
    results = read_results(out / "results.json")
    assert list(results) == ["orchard: tactics", "orchard: none", "the lake, frozen: tactics"]
    assert [run.config["games.families"] for runs in results.values() for run in runs] == [
        "orchard turns=3", "orchard turns=3", "frozen-lake turns=6"
    ]  # fmt: skip
    table = (out / "table.md").read_text()
    assert "|  | orchard | the lake, frozen |" in table and "## the lake, frozen" in table
    (line,) = [line for line in table.splitlines() if line.startswith("| none |") and "not run" in line]
    end = 100 * results["orchard: none"][0].cycles[-1].held_out.score
    assert line == f"| none | **{end:.0f} %** | not run |"
    assert (out / "worlds.png").stat().st_size > 1000
    assert (out / "runs" / "the-lake-frozen-tactics-0" / "summary.json").exists()


def test_seeds_and_settings_can_be_given(small: Path, tmp_path: Path) -> None:
    experiment = load_experiment(str(small), ["games.gate=9"], "7")
    config = experiment.config("none", 7, tmp_path)
    assert (config.seed, config.games.gate, config.strategy.name) == (7, 9, "fedoel.strategies.controls:Empty")
    assert config.out == str(tmp_path / "runs" / "none-7")
    assert not config.resume


@pytest.mark.parametrize("name", BUILT_IN)
def test_built_in_experiments_can_be_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    experiment = load_experiment(name)
    configs = [experiment.config(arm, seed, tmp_path) for arm in experiment.arms for seed in experiment.seeds]
    (tmp_path / "models").mkdir()
    for base in {config.policy.base for config in configs} - {""}:
        Path(base).symlink_to(find_model(""))  # models that no package brings
    assert all(isinstance(config, RunConfig) for config in configs)
    assert len({config.out for config in configs}) == len(configs) >= 6
    for config in configs:
        check(config)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("question = 1", "an experiment has arms, question"),
        (SMALL.replace("[arms.tactics]", "").replace("[arms.none]", "[settings.more]"), "an experiment has"),
        ("[", "not valid TOML"),
        (SMALL.replace('"games.gate"', '"games.gates"'), "unknown setting games.gates"),
        (SMALL.replace("controls:Empty", "controls:Nothing"), "strategy.name"),
        (SMALL.replace("[arms.none]", "[arms.'../../none']"), "must name a folder of its own"),
        (SMALL.replace("[arms.none]", "[arms.'']"), "must name a folder of its own"),
        (SMALL.replace("[arms.none]", "[arms.'tac,tics']"), "must name a folder of its own"),
        (SMALL.replace("[settings]", "[settings]\nseed = 3"), "leave out seed"),
        (re.sub(r"seeds = .*", "seeds = []", SMALL), "seeds must be distinct whole numbers"),
        (re.sub(r"seeds = .*", "seeds = [0, 0]", SMALL), "seeds must be distinct whole numbers"),
    ],
)
def test_what_is_no_experiment_is_refused_before_any_run(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "bad.toml"
    path.write_text(text)
    assert main(["experiment", str(path), "--out", str(tmp_path / "out")]) == REFUSED
    assert says in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


LENT = """
[arms.lent]
"strategy.name" = "fedoel.simulations.lent:Lent"
"strategy.options" = "run={runs}/tactics-{other-seed}"
"""


def test_an_arm_may_learn_from_what_another_seeds_devices_sent(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    small.write_text(SMALL + LENT)
    experiment = load_experiment(str(small), arms="lent,tactics")
    run_experiment(experiment, out)

    def vector(run: str) -> NDArray[Any]:
        return load_phase(out / "runs" / run, 1, "collect").arrays["vector"][: 2 * DIMENSION]

    assert np.array_equal(vector("lent-0"), vector("tactics-1")) and np.array_equal(
        vector("lent-1"), vector("tactics-0")
    )
    assert not np.array_equal(vector("tactics-0"), vector("tactics-1"))


def test_nothing_is_lent_where_there_is_one_seed_or_another_codec(small: Path, tmp_path: Path) -> None:
    small.write_text(SMALL + LENT)
    with pytest.raises(ConfigError, match="name the folder of the run that lends"):
        Lent(cast(Any, None))
    with pytest.raises(ConfigError, match="needs another seed"):
        run_experiment(load_experiment(str(small), seeds="0"), tmp_path)
    assert not any(tmp_path.glob("runs/*"))
    stored = load_experiment(str(small), ["codec.name=tactics-text"]).config("none", 0, tmp_path).to_flat()
    (tmp_path / "config.json").write_text(json.dumps(stored))
    spec = VectorSpec("tactics", 2, "", "", ("lake",), 1, 1.0, 1.0)
    own = Aggregate(ExperienceVector.unchecked(spec, np.ones(spec.size, np.float32)), 1)
    (tmp_path / "own").mkdir()
    run = SimpleNamespace(folder=tmp_path / "own")
    borrower = cast(Any, SimpleNamespace(run=run))
    with pytest.raises(ConfigError, match="codec 'tactics-text', not 'tactics'"):
        Lent(borrower, run="..").optimise(own, 1, 1)
    stored = load_experiment(str(small)).config("none", 0, tmp_path).to_flat()
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match="cycle 1 brought nothing"):
        Lent(borrower, run=str(tmp_path)).optimise(own, 1, 1)


def test_a_lender_runs_first_and_must_be_there(small: Path, tmp_path: Path) -> None:
    small.write_text(SMALL + LENT.replace("other-seed", "seed"))
    with pytest.raises(ConfigError, match="'lent' learns from what tactics-0 has left, which is not there"):
        run_experiment(load_experiment(str(small), arms="lent", seeds="0"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    both = load_experiment(str(small), arms="lent,tactics", seeds="0")
    run_experiment(both, tmp_path / "out here")
    (tmp_path / "out here").rename(tmp_path / "elsewhere")  # and goes on there
    run_experiment(load_experiment(str(small), arms="lent", seeds="0"), tmp_path / "elsewhere")


def test_every_experiment_that_is_there_is_built_in() -> None:
    assert sorted(BUILT_IN) == sorted(path.stem for path in FOLDER.glob("*.toml"))


def test_experiments_and_seeds_that_do_not_exist_are_refused(small: Path) -> None:
    with pytest.raises(ConfigError, match="knowledge, consistency, loop"):
        load_experiment("wisdom")
    with pytest.raises(ConfigError, match="0,1,2"):
        load_experiment(str(small), seeds="one")


def test_a_spread_is_a_mean_with_its_extremes() -> None:
    assert spread([1.0, 2.0, 6.0], "{:.0f}", " %") == "3 % (1-6)"
    assert spread([2.0, 2.0], "{:.0f}") == "2"
    assert spread([2.0, None], "{:.0f}") == spread([], "{:.0f}") == "-"
