"""Prompts per second and memory of server distillation, against TRL's on-policy distillation of the same model.

    python -m venv /tmp/trl
    /tmp/trl/bin/pip install trl==1.16.0 torch==2.13.0 transformers==5.23.0 peft==0.21.2
    python benchmarks/trl_distillation.py --python /tmp/trl/bin/python --out benchmarks/results/trl

TRL has an environment of its own and is no dependency of fedoel. Both sides get the same model (the packaged
SmolLM2-135M-Instruct, dequantised once, in single precision, on one thread), LoRA shape, prompts (states of the
scenario `quick`, each used once), batches, number of steps and learning rate. The teacher is the same frozen model with
the same advice in its prompt, the loss is the reverse KL of the student from it. Answers differ: fedoel takes the
expectation over all admissible commands exactly, TRL samples a response, as long as the longest of the commands, and
compares whole vocabularies at its tokens.

`trl-sdft` is SDFTTrainer, which is closest: only its teacher reads the context, student and teacher are one model with
the adapter on and off, and logits are made for the response only. It runs without gradient checkpointing;
`trl-sdft-checkpointing` has it, as is TRL's default. `trl-gkd` is GKDTrainer (lmbda = beta = 1): its teacher is a
second model in memory and cannot be given another prompt than the student's, so that it reads no context.

Every arm has a process of its own. One works while the others wait; the first turn of each, a single step, warms up
and is not counted. What fedoel needs to read the prompts and to ask the teacher is part of the turn. Memory is
resident memory (Linux): the peak over all turns, and what of it is above the process with its libraries and one model.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

HERE = Path(__file__).parent
OURS = ("fedoel",)  # the names in ARMS of trl_distillation_ours.py
THEIRS = ("trl-sdft", "trl-gkd", "trl-sdft-checkpointing")  # in TRAINERS of trl_distillation_theirs.py
FASTER, LEANER = 3.0, 4.0  # what is claimed, as factors
LESSONS = HERE / "results" / "quick-0"
PINS = "trl==1.16.0 torch==2.13.0 transformers==5.23.0 peft==0.21.2"
INSTALL = f"python -m venv /tmp/trl && /tmp/trl/bin/pip install {PINS}"


class Unusable(Exception):
    """The benchmark cannot run as asked."""


@dataclass
class Measured:
    """One arm: seconds of every turn, of what came before its first step and of the steps, losses, and megabytes."""

    turns: list[float] = field(default_factory=list)
    prepared: list[float] = field(default_factory=list)
    steps: list[float] = field(default_factory=list)
    losses: list[float] = field(default_factory=list)
    loaded: float = 0.0
    peak: float = 0.0
    versions: dict[str, str] = field(default_factory=dict)

    @property
    def above(self) -> float:
        return self.peak - self.loaded


class Side:
    """An arm's process, which waits until it is told to go on."""

    def __init__(self, arm: str, python: str, task: Path) -> None:
        self.arm, self.measured, self._log = arm, Measured(), task.with_name(f"{arm}.log")
        script = HERE / f"trl_distillation_{'ours' if arm in OURS else 'theirs'}.py"
        # What this environment adds to Python's path is not for another one.
        inherited = {k: v for k, v in os.environ.items() if arm in OURS or k != "PYTHONPATH"}
        self._process = subprocess.Popen(
            [python, str(script), arm, str(task)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            stderr=self._log.open("w"), env={**inherited, "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
        self.measured.versions = self._next("loaded")["versions"]
        self._forget_peak()
        self.measured.loaded = self._memory("VmRSS")
        self._tell()
        self._next("ready")

    def turn(self, steps: int, last: bool, counted: bool = True) -> None:
        """Let it work, and keep the time."""
        start = before = time.perf_counter()
        self._tell()
        seconds: dict[str, list[float]] = {"prepared": [], "step": [], "turn": []}
        while not seconds["turn"]:
            message, now = self._next(), time.perf_counter()
            seconds[message["event"]].append(now - before)
            before = now
        if len(seconds["step"]) != steps:
            raise Unusable(f"{self.arm} took {len(seconds['step'])} steps, not {steps}")
        self.measured.losses += message["losses"]
        self.measured.peak = self._memory("VmHWM")
        if counted:
            self.measured.turns.append(before - start)
            self.measured.prepared.append(sum(seconds["prepared"]))
            self.measured.steps += seconds["step"]
        if not last:
            self._next("ready")

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.communicate()

    def _tell(self) -> None:
        assert self._process.stdin
        self._process.stdin.write("go\n")
        self._process.stdin.flush()

    def _next(self, event: str = "") -> dict[str, Any]:
        assert self._process.stdout
        line = self._process.stdout.readline()
        if not line:
            raise Unusable(f"{self.arm} ended too early:\n{self._log.read_text()[-2000:]}")
        message: dict[str, Any] = json.loads(line)
        if event and message["event"] != event:
            raise Unusable(f"{self.arm} said {message['event']!r} where {event!r} was due")
        return message

    def _memory(self, name: str) -> float:
        lines = Path(f"/proc/{self._process.pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{name}:"))

    def _forget_peak(self) -> None:
        """Start the peak anew, so that what loading needed for a moment does not hide what training needs."""
        Path(f"/proc/{self._process.pid}/clear_refs").write_text("5", encoding="ascii")


def main(argv: Sequence[str] | None = None) -> None:
    """Measure all arms in turn, print the table and keep it if asked to."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--python", default="/tmp/trl/bin/python", help="interpreter of an environment that has TRL")
    parser.add_argument("--arms", default=",".join((*OURS, *THEIRS[:2])), help="which to measure, separated by commas")
    parser.add_argument("--steps", type=int, default=2, help="steps of a turn")
    parser.add_argument("--repeats", type=int, default=3, help="turns of each arm that count")
    parser.add_argument("--batch", type=int, default=12, help="prompts of a step")
    parser.add_argument("--out", type=Path, help="folder for results.json and table.md")
    arguments = parser.parse_args(argv)
    try:
        check(arguments)
        results = run(arguments)
    except Unusable as error:
        parser.error(str(error))
    results["command"] = shlex.join(["python", "benchmarks/trl_distillation.py", *(argv or sys.argv[1:])])
    text = table(results)
    print(text)
    if arguments.out:
        arguments.out.mkdir(parents=True, exist_ok=True)
        (arguments.out / "results.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
        (arguments.out / "table.md").write_text(text + "\n", encoding="utf-8")


def check(arguments: argparse.Namespace) -> None:
    """Refuse what cannot be measured, before any work starts."""
    arms = arguments.arms.split(",")
    if unknown := [arm for arm in arms if arm not in (*OURS, *THEIRS)]:
        raise Unusable(f"unknown arm {unknown[0]!r}: choose from {', '.join((*OURS, *THEIRS))}")
    if arms[0] not in OURS or len(set(arms)) < len(arms):
        raise Unusable(f"--arms {arguments.arms}: name one of fedoel's first, then others, each once")
    for name in ("steps", "repeats", "batch"):
        if getattr(arguments, name) < 1:
            raise Unusable(f"--{name} must be at least 1")
    if not Path("/proc/self/clear_refs").exists():
        raise Unusable("memory is read from /proc: run this on Linux")
    if not set(arms) & set(THEIRS):
        return
    ask = "import importlib.metadata as m; print(m.version('trl'))"
    try:
        done = subprocess.run([arguments.python, "-c", ask], capture_output=True, text=True)
    except OSError as error:
        raise Unusable(f"{arguments.python} cannot be run ({error.strerror}). Make it: {INSTALL}") from error
    if done.returncode:
        raise Unusable(f"{arguments.python} has no TRL. Make an environment that has it: {INSTALL}")


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start every arm's process and let them take turns."""
    turns = [1, *[arguments.steps] * arguments.repeats]
    sides: list[Side] = []
    with tempfile.TemporaryDirectory() as scratch:
        task = prepare(turns, arguments.batch, Path(scratch))
        path = Path(scratch) / "task.json"
        path.write_text(json.dumps(task), encoding="utf-8")
        try:
            for arm in arguments.arms.split(","):
                sides.append(Side(arm, sys.executable if arm in OURS else arguments.python, path))
                sides[-1].turn(1, last=False, counted=False)
            for number in range(1, len(turns)):
                for side in sides:
                    side.turn(turns[number], last=number == len(turns) - 1)
                    print(f"turn {number}, {side.arm}: {side.measured.turns[-1]:.1f} s", file=sys.stderr, flush=True)
        finally:
            for side in sides:
                side.close()
    settings = {name: value for name, value in task.items() if name not in ("prompts", "model", "scratch")}
    arms = {side.arm: asdict(side.measured) for side in sides}
    return {"settings": {**settings, "steps": arguments.steps, "prompts": len(task["prompts"])}, "arms": arms}


def prepare(turns: Sequence[int], batch: int, scratch: Path) -> dict[str, Any]:
    """Write down what both sides need: model folder, settings, context, and states of the scenario's games."""
    from fedoel.cli.main import set_environment

    set_environment()
    import numpy as np
    from transformers import AutoTokenizer

    from fedoel.codecs.tactics.coordinates import DIMENSION, advice, tactic_name
    from fedoel.codecs.tactics.policy import TacticsPolicy
    from fedoel.policies.model_files import find_model
    from fedoel.policies.torch.base import dequantised
    from fedoel.protocol.host.cache import default_cache
    from fedoel.protocol.play import turns_of
    from fedoel.protocol.prompts import SYSTEM, render
    from fedoel.server.public.game_plan import GamePlan
    from fedoel.server.public.games import PublicGames
    from fedoel.server.summary import read_summary
    from fedoel.simulations.scenario import load_scenario

    config, cache, wanted = load_scenario("quick"), default_cache(), batch * sum(turns)
    plan = GamePlan.of(config)
    uniform = TacticsPolicy("uniform", np.zeros(DIMENSION, dtype=np.float32))
    played = turns_of(PublicGames(plan, cache).play(uniform, plan.rehearsal, "uniform"))
    if len(played) < wanted:
        raise Unusable(f"{wanted} prompts are needed and there are {len(played)}: fewer steps, repeats or a batch")
    prompts: list[dict[str, Any]] = []
    for situation in (turn.situation for turn in played[:wanted]):
        prompt, fields = render(situation), {**asdict(situation), "done": sorted(situation.done)}
        prompts.append({"system": SYSTEM, "user": prompt.scene + prompt.moment, "situation": fields})
    weights = np.zeros(DIMENSION, dtype=np.float32)
    for lesson in read_summary(LESSONS).cycles[1].lessons:
        weights[[tactic_name(cell) for cell in range(DIMENSION)].index(lesson.tactic)] = lesson.weight
    folder = dequantised(find_model(""), cache)[0]
    ids = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    commands = {command for prompt in prompts for command in prompt["situation"]["admissible"]}
    return {
        "model": str(folder), "scratch": str(scratch), "threads": 1, "rank": config.policy.lora_rank,
        "layers": config.policy.lora_layers, "batch": batch, "turns": list(turns),
        "learning_rate": config.distil.learning_rate, "context": advice(weights), "prompts": prompts,
        "tokens": 1 + max(len(ids(command, add_special_tokens=False)["input_ids"]) for command in commands),
    }  # fmt: skip


def table(results: Mapping[str, Any]) -> str:
    """Markdown: speed and memory of every arm, how they compare with the first one's, and whether the claims hold."""
    arms = {name: Measured(**values) for name, values in results["arms"].items()}
    steps, batch = results["settings"]["steps"], results["settings"]["batch"]
    name, own = next(iter(arms.items()))
    head = (
        "arm",
        "prompts/s",
        "times slower",
        "s a step",
        "MB above the model",
        "times more",
        "MB in all",
        "times more",
    )
    lines, verdicts = [f"| {' | '.join(head)} |", "|" + "---|" * len(head)], list[str]()
    for arm, seen in arms.items():
        slower = [theirs / ours for theirs, ours in zip(seen.turns, own.turns, strict=True)]
        above, whole, second = seen.above / own.above, seen.peak / own.peak, median(seen.turns) / steps
        cells = [f"{batch / second:.2f}", spread(slower), f"{second:.2f}", f"{seen.above:.0f}", f"{above:.1f}"]
        lines.append(f"| {' | '.join([arm, *cells, f'{seen.peak:.0f}', f'{whole:.1f}'])} |")
        if seen is not own:
            verdicts.append(
                f"{name} against {arm}: {FASTER:.0f} times the prompts per second in every turn: "
                f"{said(min(slower) >= FASTER)}; a quarter of the memory or less: {said(above >= LEANER)} above the "
                f"model, {said(whole >= LEANER)} in all."
            )
    share = median(before / turn for before, turn in zip(own.prepared, own.turns, strict=True))
    return "\n".join([*lines, "", *verdicts, f"{name} spends {share:.0%} of a turn before its first step."])


def said(holds: bool) -> str:
    return "yes" if holds else "no"


def spread(ratios: Sequence[float]) -> str:
    """Median, lowest and highest."""
    return f"{median(ratios):.1f} ({min(ratios):.1f}-{max(ratios):.1f})"


if __name__ == "__main__":
    main()
