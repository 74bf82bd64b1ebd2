"""The same scenario in several arms and seeds, and one table and figure from all of them.

An experiment is a TOML file: a question, a scenario, seeds, settings for all arms, and settings for each. Every run
lies in a folder of its own, so that an experiment that was interrupted goes on where it stopped. An experiment with
`worlds` makes every arm in every world: its arms are then called ``WORLD: ARM``. Runs that begin alike
begin once: what cycle 0 left is copied. Arms that the file says `cannot` be run are there to be refused: the table says
why. An arm may name a `baseline`, which makes the same run in another way.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from shlex import quote

from ..protocol.config import RunConfig, Scalar
from ..protocol.errors import ConfigError
from ..protocol.host.files import write_whole
from ..protocol.records.json_codec import from_stored, to_stored
from ..protocol.records.summary import Summary
from ..protocol.set_option import parse_setting
from ..protocol.settings import read_toml
from ..server.cycle.phases import lend_cycle
from ..server.run_folder import own_folder
from ..server.summary import read_summary
from .baselines.baseline import Baseline, Federated, load_baseline
from .experiment_figures import comparison, draw_experiment, draw_worlds
from .experiment_table import arms_table, worlds_table
from .live import live_view
from .scenario import load_scenario

BUILT_IN = (
    "knowledge",
    "consistency",
    "loop",
    "transfer",
    "privacy",
    "federation",
    "prefix",
    "heterogeneity",
    "language",
    "free",
    "sizes",
    "blind",
)
FOLDER = Path(__file__).parent / "experiments"
KEYS = {"question", "scenario", "seeds", "settings", "arms"}
# All that decides what cycle 0 leaves: the warm start, the floors, and the first evaluation.
BEGINNING = ("seed", "games.", "policy.", "warm-start.", "server.")
CANNOT, BASELINE, WORLDS = "cannot", "baseline", "worlds"
ARM = re.compile(r"[^\W.][^/\\\x00-\x1f]*")
IN_WORLD = ": "  # between a world and an arm
RESULTS = "results.json"  # the summaries of every arm, each stored as in its own summary.json
RUNS, SEED, OTHER_SEED = "{runs}", "{seed}", "{other-seed}"  # in an arm's settings: what another arm has left
LENDER = re.compile(re.escape(RUNS) + r"/(\S+)")
Settings = Mapping[str, Scalar]


@dataclass(frozen=True, slots=True)
class Experiment:
    """What is compared with what."""

    name: str
    question: str
    scenario: str
    seeds: tuple[int, ...]
    settings: Settings
    arms: Mapping[str, Settings]
    impossible: Mapping[str, Settings] = field(default_factory=dict)

    def config(self, arm: str, seed: int, out: Path) -> RunConfig:
        """Return the run of one arm and seed.

        Raises
        ------
        ConfigError
            If a setting is unknown or cannot be used.
        """
        folder = out / "runs" / f"{_folder(arm)}-{seed}"
        # Relative to the run's own folder, so that an experiment can be moved.
        places = {**self._places(seed), RUNS: ".."}
        own = {name: _filled(value, places) for name, value in self._arm(arm).items() if name != BASELINE}
        given = {**self.settings, **own, "seed": seed, "out": str(folder)}
        return replace(load_scenario(self.scenario, given), resume=folder.exists())

    def method(self, arm: str) -> Baseline:
        """Return how the runs of one arm are made.

        Raises
        ------
        ConfigError
            If the arm names a baseline that is none.
        """
        return load_baseline(str(self._arm(arm).get(BASELINE, Federated.NAME)))

    def checked(self, arm: str, seed: int, out: Path) -> RunConfig:
        """Return the run of one arm and seed as its method makes it; raises `ConfigError` if it cannot be made."""
        return self.method(arm).check(self.config(arm, seed, out))

    def lenders(self, arm: str, seed: int) -> list[str]:
        """Return the folders of the runs that a run learns from, so that it comes after all that learn for themselves.

        Raises
        ------
        ConfigError
            If it needs one of another seed, and there is one seed only.
        """
        values = [str(value) for value in self._arm(arm).values()]
        if any(OTHER_SEED in value for value in values) and len(self.seeds) < 2:
            raise ConfigError(f"{self.name}: {arm!r} needs another seed; name two, or the other arms with --arms")
        return [name for value in values for name in LENDER.findall(str(_filled(value, self._places(seed))))]

    def _places(self, seed: int) -> Mapping[str, str]:
        other = self.seeds[(self.seeds.index(seed) + 1) % len(self.seeds)] if seed in self.seeds else seed
        return {SEED: str(seed), OTHER_SEED: str(other)}

    def _arm(self, arm: str) -> Settings:
        return {**self.arms, **self.impossible}[arm]


def load_experiment(name: str, settings: Sequence[str] = (), seeds: str = "", arms: str = "") -> Experiment:
    """Read an experiment, built in by name or given by path.

    Parameters
    ----------
    settings
        ``key=value`` for all arms, over those of the file.
    seeds
        Numbers with commas between them, instead of those of the file.
    arms
        Names with commas between them: only these.

    Raises
    ------
    ConfigError
        If there is no such experiment, or the file is not one.
    """
    path = FOLDER / f"{name}.toml" if name in BUILT_IN else Path(name)
    if not path.is_file():
        raise ConfigError(f"no experiment {name!r}: give the path of a TOML file, or one of {', '.join(BUILT_IN)}")
    read = read_toml(path)
    if set(read) - {CANNOT, WORLDS} != KEYS or not isinstance(read["arms"], dict) or not read["arms"]:
        lacking = ", ".join(sorted(KEYS - set(read))) or "nothing"
        unknown = ", ".join(sorted(set(read) - {CANNOT, WORLDS} - KEYS)) or "nothing"
        has = f"an experiment has {', '.join(sorted(KEYS))}, and at least one arm"
        raise ConfigError(f"{path}: {has}; {lacking} is missing, and {unknown} is unknown")
    chosen = _seeds(seeds) if seeds else tuple(read["seeds"])
    shared = {**read["settings"], **dict(parse_setting(text) for text in settings)}
    impossible = {} if arms else read.get(CANNOT, {})
    everything = _in_worlds(read[WORLDS], read["arms"]) if WORLDS in read else read["arms"]
    some = _chosen(arms, everything) if arms else everything
    _check(path, everything, chosen, shared)
    return Experiment(path.stem, read["question"], read["scenario"], chosen, shared, some, impossible)


def run_experiment(
    experiment: Experiment, out: Path, *, quiet: bool = False, verbose: bool = False
) -> dict[str, list[Summary]]:
    """Run every arm with every seed, seeds first, so that whole comparisons are there early; who borrows comes last.

    Parameters
    ----------
    quiet, verbose
        As in `live_view`.

    Returns
    -------
    dict
        Summaries of each arm, one a seed.

    Raises
    ------
    ConfigError
        If any arm cannot be run: all are checked before the first starts.
    """
    pairs = [(arm, seed) for seed in experiment.seeds for arm in experiment.arms]
    pairs.sort(key=lambda pair: bool(experiment.lenders(*pair)))
    configs = {(arm, seed): experiment.checked(arm, seed, out) for arm, seed in pairs}
    _check_lenders(experiment, configs, out)
    refusals(experiment, out)
    results: dict[str, list[Summary]] = {arm: [] for arm in experiment.arms}
    done: list[RunConfig] = []
    for (arm, seed), config in configs.items():
        if not quiet:
            print(f"--- {arm}, seed {seed}", flush=True)
        method = experiment.method(arm)
        with own_folder(config):
            if isinstance(method, Federated):
                _begin_like(config, done)
                done.append(config)
            results[arm].append(_run(config, method, quiet, verbose))
    return results


def _check_lenders(experiment: Experiment, configs: Mapping[tuple[str, int], RunConfig], out: Path) -> None:
    made = {Path(config.out).name for config in configs.values()}
    for arm, seed in configs:
        for lender in experiment.lenders(arm, seed):
            if lender not in made and not (out / "runs" / lender / "summary.json").exists():
                raise ConfigError(
                    f"{experiment.name}: {arm!r} learns from what {lender} has left, which is not there: "
                    "name that arm, too, with --arms"
                )


def refusals(experiment: Experiment, out: Path) -> dict[str, str]:
    """Return the error of each arm that is expected to be refused.

    Raises
    ------
    ConfigError
        If one of them can be run.
    """
    found: dict[str, str] = {}
    for arm in experiment.impossible:
        try:
            experiment.checked(arm, experiment.seeds[0], out)
        except ConfigError as refusal:
            found[arm] = str(refusal)
        else:
            raise ConfigError(f"{experiment.name}: {arm!r} can be run, so it belongs to the arms, not to {CANNOT!r}")
    return found


def write_results(
    experiment: Experiment, results: Mapping[str, Sequence[Summary]], table: str, out: Path
) -> list[Path]:
    """Write table, figures and summaries of an experiment, and return their paths."""
    heading = f"# {experiment.name}\n\n{experiment.question}\n\n"
    seeds = ", ".join(map(str, experiment.seeds))
    command = f"fedoel experiment {quote(experiment.name)} --seeds {seeds.replace(' ', '')}"
    below = f"\nSeeds {seeds}: means, and from the lowest to the highest. Made by `{command}`.\n"
    write_whole(out / "table.md", f"{heading}{table}{below}".encode())
    stored = {arm: [to_stored(summary) for summary in summaries] for arm, summaries in results.items()}
    write_whole(out / RESULTS, json.dumps(stored, indent=1).encode())
    worlds = by_world(results)
    if "" in worlds:
        figures = draw_experiment(experiment.question, results, out)
    else:
        figures = draw_worlds(experiment.question, worlds, out)
    return [out / "table.md", *figures, out / RESULTS]


def read_results(path: Path) -> dict[str, list[Summary]]:
    """Read the ``results.json`` of an experiment: summaries of each arm, one a seed.

    Raises
    ------
    ConfigError
        If the file cannot be read, or one of its summaries cannot.
    """
    remedy = "give the results.json of an experiment"
    try:
        stored = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigError(f"cannot read {path}: {error}; {remedy}") from error
    if not isinstance(stored, dict) or not all(isinstance(runs, list) for runs in stored.values()):
        raise ConfigError(f"{path} must hold a list of summaries for each arm; {remedy}")
    return {
        arm: [from_stored(Summary, table, f"{path}, {arm}, run {index}", remedy) for index, table in enumerate(runs)]
        for arm, runs in stored.items()
    }


def results_table(experiment: Experiment, results: Mapping[str, Sequence[Summary]], out: Path) -> str:
    """Return the table of arms, and below it the comparison of methods where an experiment has all three.

    Compared are the first arm that is federated, the first that is pooled, and the first in which clients are alone. An
    experiment with worlds has a table for each, below one of all of them.
    """
    worlds = by_world(results)
    if "" not in worlds:
        parts = [f"## {world}\n\n{arms_table(arms)}\n" for world, arms in worlds.items()]
        return "\n".join([worlds_table(worlds), "", *parts])
    first = {experiment.method(arm).NAME: results[arm] for arm in reversed([*experiment.arms])}
    methods = [first[name] for name in ("federated", "pooled", "local-only") if name in first]
    compared = f"\n{comparison(*methods)}\n" if len(methods) == 3 else ""
    return f"{arms_table(results, refusals(experiment, out))}\n{compared}"


def _run(config: RunConfig, method: Baseline, quiet: bool, verbose: bool) -> Summary:
    """Run one arm to its end, unless it has been there, and return its summary."""
    out = Path(config.out)
    if not ((out / "summary.json").exists() and len(read_summary(out).cycles) > config.cycles):
        with live_view(config, quiet=quiet, verbose=verbose) as listener:
            method.run(config, listener)
    return read_summary(out)


def _begin_like(config: RunConfig, done: Sequence[RunConfig]) -> None:
    """Give a run that has not begun the finished cycle 0 of one that began in the same way."""
    same = next((other for other in done if _beginning(other) == _beginning(config)), None)
    if same is not None:
        lend_cycle(Path(same.out), Path(config.out))


def _filled(value: Scalar, places: Mapping[str, str]) -> Scalar:
    for place, text in places.items():
        value = value.replace(place, text) if isinstance(value, str) else value
    return value


def _beginning(config: RunConfig) -> dict[str, Scalar]:
    return {key: value for key, value in config.to_flat().items() if key.startswith(BEGINNING)}


def _folder(arm: str) -> str:
    return arm.replace(IN_WORLD, "-").replace(" ", "-").replace(",", "")


def _check(path: Path, arms: Mapping[str, Settings], seeds: Sequence[object], shared: Settings) -> None:
    """Refuse arms whose runs have no folder of their own, seeds that are none, and settings that seeds decide."""
    folders = Counter(map(_folder, arms))
    for arm in arms:
        if not ARM.fullmatch(_folder(arm)) or folders[_folder(arm)] > 1:
            raise ConfigError(
                f"{path}: the arm {arm!r} must name a folder of its own: begin with a letter or a digit, without "
                "slashes, and differ from other arms in more than spaces and commas"
            )
    if not seeds or len(set(seeds)) < len(seeds) or not all(type(seed) is int and seed >= 0 for seed in seeds):
        raise ConfigError(f"{path}: seeds must be distinct whole numbers, at least one, not {list(seeds)}")
    if own := {"seed", "out"} & {*shared, *(name for settings in arms.values() for name in settings)}:
        raise ConfigError(
            f"{path}: every run has a seed and a folder of its own: leave out {' and '.join(sorted(own))}"
        )


def _in_worlds(worlds: Mapping[str, Settings], arms: Mapping[str, Settings]) -> Mapping[str, Settings]:
    return {f"{world}{IN_WORLD}{arm}": {**worlds[world], **arms[arm]} for world in worlds for arm in arms}


def by_world(results: Mapping[str, Sequence[Summary]]) -> dict[str, dict[str, Sequence[Summary]]]:
    """Return the results of each world by arm; without worlds, those of one without a name."""
    worlds: dict[str, dict[str, Sequence[Summary]]] = {}
    for name, runs in results.items():
        world, _, arm = name.rpartition(IN_WORLD)
        worlds.setdefault(world, {})[arm] = runs
    return worlds


def _chosen(names: str, arms: Mapping[str, Settings]) -> Mapping[str, Settings]:
    """Keep the arms that are named; names may hold commas themselves, so the longest that fit are taken."""
    some, rest = dict[str, Settings](), names
    while rest:
        fits = [name for name in arms if f"{rest},".startswith(f"{name},")]
        if not fits:
            raise ConfigError(f"--arms: there is no arm at {rest!r}; there are: {'; '.join(arms)}")
        name = max(fits, key=len)
        some[name], rest = arms[name], rest[len(name) + 1 :]
    return some


def _seeds(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(part) for part in text.split(","))
    except ValueError as error:
        raise ConfigError(f"--seeds {text!r}: write numbers with commas between them, e.g. 0,1,2") from error
