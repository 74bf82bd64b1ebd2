"""A run is killed at every step that makes something durable, and goes on: does it end as the run that nobody killed?

    python benchmarks/crash_points.py --out benchmarks/results/crash-points

A durable step is a call that a power cut or `kill -9` may separate from the next: a file or a folder is forced to the
disk (fsync), renamed (replace), cut (truncate) or linked (link), or SQLite commits. One run that nobody kills lists
them. For each step a process is killed with SIGKILL before it, another one behind it, and a second process resumes the
run. Where all files are as they were at the moment before, such as behind an fsync, `kill -9` leaves the same behind,
and there is one kill for both moments.

Twelve devices without a language model play a game in pure Python, in two cycles of two exchanges, with secure sums,
trials by devices and distillation. Without noise, the resumed run must have the same versions and decisions cycle by
cycle. With noise, which is never the same twice, its ledger must hold at least as many releases as sums were opened by
both processes together. In both, `fedoel verify` must find nothing. What is done is kept: the same command goes on.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import re
import signal
import sqlite3
import tempfile
import traceback
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from fedoel.protocol.config import RunConfig
from fedoel.protocol.secagg.server import ServerRound
from fedoel.server.run_folder import STORED, own_folder
from fedoel.server.run_location import locate
from fedoel.server.safeguards import LEDGER, Ledger
from fedoel.server.summary import read_summary
from fedoel.server.verify import verify
from fedoel.simulations.inprocess import run_inprocess

STEPS = ("fsync", "replace", "truncate", "link")
SUM: dict[str, Any] = {
    "clients": 12, "cycles": 2, "seed": 9000, "games.families": "frozen-lake size=3 turns=4", "games.per-client": 2,
    "games.rehearsal": 8, "games.gate": 8, "games.held-out": 8, "games.held-out-teacher": 1,
    "policy.backend": "tactics", "policy.threads": 1, "strategy.name": "secure-mean",
    "strategy.min-available-nodes": 12, "strategy.exchanges": 2, "server.pack": 16,
    "server.prompts-per-cycle": 16, "trial.share": 1.0, "context.max-kl": 0.5,
}  # fmt: skip
NOISE = {"privacy.mechanism": "distributed", "privacy.epsilon": 1000.0}
RUNS = {"secure sum": SUM, "secure sum with noise": {**SUM, **NOISE}}


class Steps:
    """Counts and names the durable steps of this process, and kills it at one of them, or lets that step fail.

    Parameters
    ----------
    root
        Steps elsewhere do not count.
    at, behind
        Number of the step at which something happens (nothing if it is -1), and whether that is behind it.
    happens
        Kills the process, or raises an error; it is told the name of the step.
    look
        Whether to note at every moment whether the files have changed since the moment before, in `changes`: two a
        step.
    """

    def __init__(
        self, root: Path, at: int = -1, behind: bool = False, look: bool = False,
        happens: Callable[[str], None] = lambda name: os.kill(os.getpid(), signal.SIGKILL),
    ) -> None:  # fmt: skip
        self.root, self.at, self.behind, self.names, self.happens = root, at, behind, list[str](), happens
        self.changes, self._look, self._files = list[bool](), look, b""

    def watch(self) -> None:
        """Replace the calls by some that count."""
        for name in STEPS:
            setattr(os, name, self._counted(name, getattr(os, name)))
        steps = self

        class Connection(sqlite3.Connection):
            def __init__(self, path: Any, *rest: Any, **named: Any) -> None:
                super().__init__(path, *rest, **named)
                self.path = Path(path)

            def __exit__(self, *error: Any) -> Any:
                return steps.step("commit", self.path, super().__exit__, *error)

        sqlite3.connect = partial(sqlite3.connect, factory=Connection)  # type: ignore[assignment]

    def _counted(self, name: str, step: Callable[..., Any]) -> Callable[..., Any]:
        def counted(what: Any, *rest: Any, **named: Any) -> Any:
            path = Path(os.readlink(f"/proc/self/fd/{what}") if isinstance(what, int) else (rest or [what])[0])
            return self.step(name, path, step, what, *rest, **named)

        return counted

    def step(self, name: str, path: Path, call: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        """Make a call that makes something durable at a path."""
        if not path.is_relative_to(self.root):
            return call(*arguments, **named)
        here = len(self.names) == self.at
        self.names.append(f"{name} {drafts_alike(str(path.relative_to(self.root)))}")
        if here and not self.behind:
            self.happens(name)
        self._note_change()
        result = call(*arguments, **named)
        if here and self.behind:
            self.happens(name)
        self._note_change()
        return result

    def _note_change(self) -> None:
        if self._look:
            before, self._files = self._files, digest_of(self.root)
            self.changes.append(self._files != before)


def digest_of(root: Path) -> bytes:
    """Return a digest of the names and contents of all files below a folder."""
    digest = hashlib.sha256()
    for path in sorted(root.rglob("*")):
        digest.update(f"{path}\0".encode() + (hashlib.sha256(path.read_bytes()).digest() if path.is_file() else b""))
    return digest.digest()


def drafts_alike(path: str) -> str:
    """Leave out what is random in a path: names of versions and of temporary folders."""
    return re.sub(r"making-\w+|\b[0-9a-f]{16}\b|\.[\w.]+-\w{8}(?=/|$)", "*", path)


def in_process(work: Callable[[], Any]) -> tuple[int, Any]:
    """Call a function in a process of its own; return how that ended, and the JSON of what the function returned."""
    with tempfile.NamedTemporaryFile(mode="r+", encoding="utf-8") as answer:
        if not (child := os.fork()):
            try:
                Path(answer.name).write_text(json.dumps(work()), encoding="utf-8")
                os._exit(0)
            except BaseException:
                Path(answer.name).write_text(json.dumps(traceback.format_exc()[-600:]), encoding="utf-8")
                os._exit(1)
        _, status = os.waitpid(child, 0)
        text = answer.read()
    return os.waitstatus_to_exitcode(status), json.loads(text) if text else None


def play(settings: dict[str, Any], out: Path, steps: Steps) -> tuple[list[str], list[bool]]:
    """Run or resume, note each round whose shares arrive beside the folder, and return durable steps and changes."""
    logging.getLogger("flwr").setLevel(logging.ERROR)
    take_opened = ServerRound.take_opened

    def noted(self: ServerRound, position: int, reply: bytes) -> None:
        with out.with_suffix(".opened").open("a", encoding="utf-8") as notes:
            notes.write(f"{self.terms.digest.hex()}\n")
        take_opened(self, position, reply)

    ServerRound.take_opened = noted  # type: ignore[method-assign]
    config = RunConfig.from_flat({**settings, "out": str(out), "resume": (out / STORED).exists()})
    steps.watch()
    with own_folder(config):
        run_inprocess(config)
    return steps.names, steps.changes


def outcome(out: Path) -> dict[str, Any]:
    """Return what a finished run has come to."""
    cycles = [[record.cycle, record.decision, record.version] for record in read_summary(out).cycles]
    opened = len(set(out.with_suffix(".opened").read_text(encoding="utf-8").split()))
    wrong = list(verify(locate(out)).problems)
    return {"cycles": cycles, "opened": opened, "spent": Ledger(out / LEDGER).spent(), "wrong": wrong}


def killed_and_resumed(settings: dict[str, Any], at: int, behind: bool) -> dict[str, Any]:
    """Return what comes of a run that is killed at a step and resumed."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        code, said = in_process(lambda: play(settings, out, Steps(out.resolve(), at, behind)))
        if code != -signal.SIGKILL:
            return {"error": f"was not killed: {said}"}
        code, said = in_process(lambda: play(settings, out, Steps(out.resolve())))
        return outcome(out) if code == 0 else {"error": said}


def problems(result: dict[str, Any], whole: dict[str, Any], noisy: bool) -> list[str]:
    """Return what is not as it has to be."""
    if "error" in result:
        return [result["error"]]
    found = list(result["wrong"])
    if result["spent"] < result["opened"]:
        found.append(f"{result['opened']} sums were opened, and {result['spent']} are in the ledger")
    if [cycle for cycle, *_ in result["cycles"]] != [cycle for cycle, *_ in whole["cycles"]]:
        found.append("cycles are missing")
    if not noisy and result["cycles"] != whole["cycles"]:
        found.append(f"{result['cycles']} instead of {whole['cycles']}")
    return found


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
            done = {"steps": names, "changes": changes, "whole": outcome(run), "wrong": {}, "tried": 0, "kills": 0}
    for number in range(done["tried"], 2 * len(done["steps"])):
        at, behind = divmod(number, 2)
        done["tried"] = number + 1
        if not done["changes"][number]:
            continue
        result = killed_and_resumed(settings, at, bool(behind))
        if wrong := problems(result, done["whole"], settings is not SUM):
            done["wrong"][f"{'behind' if behind else 'before'} {at}: {done['steps'][at]}"] = wrong
        done["kills"] += 1
        path.write_text(json.dumps(done, indent=1), encoding="utf-8")
    return done


def main() -> None:
    """Measure all runs, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    out: Path = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    lines = ["| run | durable steps | distinct | moments | kills | wrong afterwards |", "|---|---|---|---|---|---|"]
    for kind in RUNS:
        done = measure(kind, out)
        steps = done["steps"]
        lines.append(
            f"| {kind} | {len(steps)} | {len(set(steps))} | {done['tried']} | {done['kills']} | {len(done['wrong'])} |"
        )
    (out / "table.md").write_text("\n".join(lines) + "\n", encoding="utf-8")
    print("\n".join(lines))


if __name__ == "__main__":
    main()
