"""A run is killed at every step that makes something durable, and goes on: does it end as the run that nobody killed?

    python benchmarks/crash_points.py --out benchmarks/results/crash-points

A durable step is a call that a power cut or `kill -9` may separate from the next: a file or a folder is forced to the
disk (fsync), renamed (replace), cut (truncate) or linked (link), or SQLite commits. One run that nobody kills lists
them. For each step a process is killed with SIGKILL before it, another one behind it, and a second process resumes the
run. Where all files are as they were at the moment before, such as behind an fsync, `kill -9` leaves the same behind,
and there is one kill for both moments. What is released with noise cannot be taken back: it is a step as well, with a
kill at both moments.

Twelve devices without a language model play a game in pure Python, in two cycles of two exchanges, with secure sums,
trials by devices and distillation; with distributed, central and local noise, eight devices in cycles of one exchange.
Without noise, the resumed run must have the same versions and decisions cycle by cycle. Noise is never the same twice.
With it, the ledger and the epsilon of every cycle's record must count at least what both processes released together;
what was finished before the kill stays; and where a copy of the killed run is resumed as well, both come to the same
version and decision in every cycle in which neither released anything more. In all, `fedoel verify` must find nothing.
What is done is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import secrets
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import Any

from fedoel.protocol.config import RunConfig
from fedoel.protocol.host.files import replace_file
from fedoel.protocol.secagg.server import ServerRound
from fedoel.server.accounting import Release, epsilon_of
from fedoel.server.run_folder import STORED, own_folder
from fedoel.server.run_location import locate
from fedoel.server.safeguards import LEDGER, Ledger, RunSafeguards
from fedoel.server.summary import NAME, read_summary
from fedoel.server.verify import verify
from fedoel.simulations.inprocess import run_inprocess
from fedoel.strategies.mean import CentralMean, LocalMean
from fedoel.strategies.secure_mean import SecureMean

sys.path.append(str(Path(__file__).resolve().parents[1]))

from benchmarks.durable_steps import Steps, in_process

RELEASE = "release"  # name of the step
SUM: dict[str, Any] = {
    "clients": 12, "cycles": 2, "seed": 9000, "games.families": "frozen-lake size=3 turns=4", "games.per-client": 2,
    "games.rehearsal": 8, "games.gate": 8, "games.held-out": 8, "games.held-out-teacher": 1,
    "policy.backend": "tactics", "policy.threads": 1, "strategy.name": "secure-mean",
    "strategy.min-available-nodes": 12, "strategy.exchanges": 2, "server.pack": 16,
    "server.prompts-per-cycle": 16, "trial.share": 1.0, "context.max-kl": 0.5,
}  # fmt: skip
# Fewer devices and one exchange: with noise, a killed run is resumed twice.
PRIVATE: dict[str, Any] = {
    **SUM, "clients": 8, "strategy.min-available-nodes": 8, "strategy.exchanges": 1, "privacy.epsilon": 1000.0,
}  # fmt: skip
RUNS: dict[str, dict[str, Any]] = {
    "secure sum": SUM,
    "secure sum with noise": {**PRIVATE, "privacy.mechanism": "distributed"},
    "central noise": {**PRIVATE, "privacy.mechanism": "central", "strategy.name": "central-mean"},
    "local noise": {**PRIVATE, "privacy.mechanism": "local", "strategy.name": "local-mean"},
}


class Releases:
    """Notes beside a run's folder what leaves its devices or its server, when it does: a cycle and a name a line."""

    def __init__(self, out: Path, steps: Steps | None = None) -> None:
        self._path, self._cycle, self._steps = out.with_suffix(".released"), 0, steps

    def read(self) -> list[int]:
        """Return the cycle of each release, of all processes."""
        lines = self._path.read_text(encoding="utf-8").splitlines() if self._path.exists() else []
        return [int(line.split()[0]) for line in lines]

    def watch(self) -> None:
        """Replace by calls that note: shares that open a sum, a sum with the server's noise, vectors with their own."""
        notes = self
        sums, take_opened = SecureMean.sums, ServerRound.take_opened

        def sums_of_cycle(self: SecureMean, grid: Any, draw: Any, request: Any, *rest: Any) -> Any:
            notes._cycle = request.cycle
            return sums(self, grid, draw, request, *rest)

        def taken(self: ServerRound, position: int, reply: bytes) -> None:
            notes._note(notes._cycle, self.terms.digest.hex())
            take_opened(self, position, reply)

        kinds: tuple[Any, Any] = SecureMean, ServerRound
        kinds[0].sums, kinds[1].take_opened = sums_of_cycle, taken
        for kind in (CentralMean, LocalMean):
            self._watch_noise(kind, kind.aggregate, kind.aggregate_trial)

    def _watch_noise(self, kind: type[Any], aggregate: Any, aggregate_trial: Any) -> None:
        def summed(strategy: Any, contributions: Any) -> Any:
            released = aggregate(strategy, contributions)
            self._note(strategy.current[0], secrets.token_hex(8))
            return released

        def tried(strategy: Any, contributions: Any, cycle: int) -> Any:
            released = aggregate_trial(strategy, contributions, cycle)
            self._note(cycle, secrets.token_hex(8))
            return released

        kind.aggregate, kind.aggregate_trial = summed, tried

    def _note(self, cycle: int, name: str) -> None:
        line = f"{cycle} {name}\n"
        if self._path.exists() and line in self._path.read_text(encoding="utf-8"):
            return
        with self._path.open("a", encoding="utf-8") as notes:
            notes.write(line)
        if self._steps:
            self._steps.step(RELEASE, self._steps.root, lambda: None)


def play(settings: dict[str, Any], out: Path, steps: Steps) -> tuple[list[str], list[bool]]:
    """Run or resume, note releases beside the folder, and return durable steps and changes."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    Releases(out, steps).watch()
    config = RunConfig.from_flat({**settings, "out": str(out), "resume": (out / STORED).exists()})
    steps.watch()
    with own_folder(config):
        run_inprocess(config)
    return steps.names, steps.changes


def outcome(settings: dict[str, Any], out: Path) -> dict[str, Any]:
    """Return what a finished run has come to, and what it has released and counted up to each cycle."""
    safeguards = RunSafeguards(RunConfig.from_flat({**settings, "out": str(out)}))
    released, cycles = (
        Releases(out).read(),
        [[one.cycle, one.decision, one.version] for one in read_summary(out).cycles],
    )
    counts = []
    for record in read_summary(out).cycles:
        before = sum(cycle <= record.cycle for cycle in released)
        counts.append(
            {
                "released": before, "in ledger": safeguards.ledger.spent(record.cycle),
                "epsilon released": epsilon_for(safeguards, before), "epsilon of the record": record.epsilon,
                "epsilon of the ledger": safeguards.spent(record.cycle),
            }
        )  # fmt: skip
    return {"cycles": cycles, "counts": counts, "wrong": list(verify(locate(out)).problems)}


def epsilon_for(safeguards: RunSafeguards, releases: int) -> float:
    """Return what so many releases of a run cost, computed from their number alone."""
    if not (safeguards.noisy and releases):
        return 0.0
    release = Release(safeguards.noise_multiplier, safeguards.accounted, safeguards.population)
    return epsilon_of(release, releases, safeguards.accounted_delta)


def kept(out: Path) -> dict[str, str]:
    """Return what a killed run has finished: digests of the outcomes of its stages, and the records of its cycles."""
    files = {str(p.relative_to(out)): hashlib.sha256(p.read_bytes()).hexdigest() for p in out.rglob("*.npz")}
    cycles = read_summary(out).cycles if (out / NAME).exists() else ()
    return files | {f"cycle {one.cycle}": f"{one.decision} {one.version}" for one in cycles}


def killed_and_resumed(settings: dict[str, Any], at: int, behind: bool) -> dict[str, Any]:
    """Return what comes of a run that is killed at a step and resumed; with noise, of a copy of it as well."""
    with tempfile.TemporaryDirectory() as folder:
        out, copy = Path(folder) / "run", Path(folder) / "copy"
        code, said = in_process(lambda: play(settings, out, Steps(out.resolve(), at, behind)))
        if code != -signal.SIGKILL:
            return {"error": f"was not killed: {said}"}
        before, spent = kept(out), spends_of(out, settings["cycles"])
        if settings is not SUM and spent[-1]:  # before the first release, there is nothing that has to be the same
            shutil.copytree(out, copy)
        results = []
        for one in filter(Path.exists, (copy, out)):
            code, said = in_process(lambda one=one: play(settings, one, Steps(one.resolve())))  # type: ignore[misc]
            if code:
                return {"error": said}
            after = kept(one)
            lost = [name for name in before if after.get(name) != before[name]]
            now = spends_of(one, settings["cycles"])
            still = [cycle for cycle, count in enumerate(now) if count == spent[cycle]]
            results.append({**outcome(settings, one), "lost": lost, "still": still})
        return {**results[-1], "copy": results[0]}


def spends_of(out: Path, cycles: int) -> list[int]:
    """Return how many releases a run's ledger has up to each cycle; none where there is no ledger."""
    return [Ledger(out / LEDGER).spent(cycle) if (out / LEDGER).exists() else 0 for cycle in range(cycles + 1)]


def problems(result: dict[str, Any], whole: dict[str, Any], noisy: bool) -> list[str]:
    """Return what is not as it has to be."""
    if "error" in result:
        return [result["error"]]
    found = [*result["wrong"], *(f"{name} was finished, and is another now" for name in result["lost"])]
    for cycle, count in enumerate(result["counts"]):
        if count["in ledger"] < count["released"]:
            found.append(f"cycle {cycle}: {count['released']} releases, and {count['in ledger']} in the ledger")
        if min(count["epsilon of the record"], count["epsilon of the ledger"]) < count["epsilon released"]:
            found.append(f"cycle {cycle}: epsilon is under-counted: {count}")
    if [cycle for cycle, *_ in result["cycles"]] != [cycle for cycle, *_ in whole["cycles"]]:
        found.append("cycles are missing")
    if not noisy and result["cycles"] != whole["cycles"]:
        found.append(f"{result['cycles']} instead of {whole['cycles']}")
    return found + [
        f"cycle {cycle}: {ours} and {theirs} of the same kept outcomes"
        for cycle, (ours, theirs) in enumerate(zip(result["cycles"], result["copy"]["cycles"], strict=False))
        if cycle in result["still"] and cycle in result["copy"]["still"] and ours != theirs
    ]


def measure(kind: str, out: Path) -> dict[str, Any]:
    """Kill and resume a run at every step that is not done yet."""
    path, settings = out / f"{kind.replace(' ', '-')}.json", RUNS[kind]
    done: dict[str, Any] = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    if not done:
        with tempfile.TemporaryDirectory() as folder:
            run = Path(folder) / "run"
            code, found = in_process(lambda: play(settings, run, Steps(run.resolve(), look=True)))
            if code:
                raise SystemExit(found)
            names, changes = found
            whole = outcome(settings, run)
            done = {
                "steps": names,
                "changes": changes,
                "whole": whole,
                "wrong": {},
                "compared": 0,
                "tried": 0,
                "kills": 0,
            }
    for number in range(done["tried"], 2 * len(done["steps"])):
        at, behind = divmod(number, 2)
        done["tried"] = number + 1
        released = done["steps"][at].startswith(RELEASE)
        if not (done["changes"][number] or (released and settings is not SUM)):
            continue
        result = killed_and_resumed(settings, at, bool(behind))
        if wrong := problems(result, done["whole"], settings is not SUM):
            done["wrong"][f"{'behind' if behind else 'before'} {at}: {done['steps'][at]}"] = wrong
        done["kills"] += 1
        done["compared"] += len(result.get("still", ()))
        replace_file(path, json.dumps(done, indent=1))
    return done


def main() -> None:
    """Measure all runs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    lines = [
        "| run | durable steps | distinct | moments | kills | cycles compared | wrong afterwards |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind in RUNS:
        done = measure(kind, out)
        steps, compared = done["steps"], done["compared"] if kind != "secure sum" else "all"
        lines.append(
            f"| {kind} | {len(steps)} | {len(set(steps))} | {done['tried']} | {done['kills']} | {compared} "
            f"| {len(done['wrong'])} |"
        )
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
