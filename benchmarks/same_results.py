"""Show that a change of the code changes no result: run a set of scenarios on two checkouts and compare.

    python benchmarks/same_results.py before.json --checkout ../before     # on the one
    python benchmarks/same_results.py after.json                           # on the other
    python benchmarks/same_results.py after.json --against before.json     # compares; exits with 1 if something differs

What is kept of a run is its ``summary.json`` without times, and every version's hash. Scenarios that are there already
are not run again. With --model, ``quick`` with the language model and one thread is run, too (about seven minutes).
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

TACTICS = ("--set", "policy.backend=tactics")
GAMES = ("--set", "server.public=games")
# One run a name: a built-in scenario, what it is told, and the seeds that it is run with.
SCENARIOS: dict[str, tuple[str, ...]] = {
    "quick": ("quick", *TACTICS),
    "quick-games": ("quick", *TACTICS, *GAMES),
    "private": ("private", *TACTICS),
    "private-games": ("private", *TACTICS, *GAMES),
    "codec-verbs": ("quick", *TACTICS, "--set", "codec.name=examples.verbs:Verbs"),
    "exchanges": ("quick", *TACTICS, "--set", "strategy.exchanges=2", "--set", "strategy.name=mean"),
    "clustered": ("quick", *TACTICS, *GAMES, "--set", "strategy.name=clustered"),
    "trusted-secure": ("quick", *TACTICS, *GAMES, "--set", "strategy.name=trusted-secure", "--clients", "12"),
    "adam": ("quick", *TACTICS, "--set", "strategy.name=adam", "--cycles", "3"),
    "central": (
        "quick", *TACTICS, "--clients", "24", "--set", "strategy.name=central-mean", "--set",
        "privacy.mechanism=central", "--set", "privacy.epsilon=8", "--set", "privacy.fisher-share=0",
    ),
    "off-policy": ("quick", *TACTICS, "--set", "distil.on-policy=false", "--set", "context.max-kl=4", "--cycles", "3"),
}  # fmt: skip
MODEL = ("quick", "--set", "policy.threads=1")
# Noise and rounding are drawn from the operating system. Here every thread, one for each device and request, draws from
# a generator of its own, so that the same code makes the same noise.
START = """
import random, secrets, sys, threading
local = threading.local()
def below(limit):
    if not hasattr(local, "rng"):
        local.rng = random.Random(threading.current_thread().name)
    return local.rng.randrange(limit)
secrets.randbelow = below
from fedoel.{module} import main
sys.exit(main(sys.argv[1:]))
"""


def main() -> int:
    """Run what is missing, or compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--against", type=Path, help="results of the other checkout")
    parser.add_argument("--checkout", type=Path, default=Path(__file__).parents[1])
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--model", action="store_true", help="quick with the language model, too")
    parser.add_argument("--only", default="", metavar="NAME,NAME", help="only runs of these names, such as quick-0")
    parser.add_argument("--cache", type=Path, default=Path("~/.cache/fedoel").expanduser())
    arguments = parser.parse_args()
    results: dict[str, Any] = json.loads(arguments.results.read_text()) if arguments.results.exists() else {}
    if arguments.against:
        return compare(json.loads(arguments.against.read_text()), results)
    seeds = [int(seed) for seed in arguments.seeds.split(",")]
    runs = [(f"{name}-{seed}", (*words, "--seed", str(seed))) for name, words in SCENARIOS.items() for seed in seeds]
    runs += [("model-0", (*MODEL, "--seed", "0"))] if arguments.model else []
    for name, words in runs:
        if name not in results and (not arguments.only or name in arguments.only.split(",")):
            print(name, flush=True)
            results[name] = run(words, arguments.checkout.resolve(), arguments.cache)
            arguments.results.write_text(json.dumps(results, indent=1))
    return 0


def run(words: tuple[str, ...], checkout: Path, cache: Path) -> dict[str, Any]:
    """Run a scenario with the code of a checkout; what is left out depends on time, place or layout alone."""
    with tempfile.TemporaryDirectory() as folder:
        package, out = Path(folder) / "code" / "fedoel", Path(folder) / "run"
        package.mkdir(parents=True)
        for part in (path for path in checkout.iterdir() if path.is_dir() and (path / "__init__.py").exists()):
            (package / part.name).symlink_to(part)
        start = START.format(module="cli.main" if (checkout / "cli").exists() else "simulations.cli")
        words = (words[0], "--out", str(out), "--set", f"cache={cache}", *words[1:])
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(package.parent), str(checkout)])}
        subprocess.run([sys.executable, "-c", start, "simulate", *words], check=True, env=environment, cwd=folder)
        summary: dict[str, Any] = json.loads((out / "summary.json").read_text())
        versions = sorted(path.name for path in (out / "versions").iterdir())
    return {"summary": without(summary, {"seconds", "config", "schema"}), "versions": versions}


def without(value: Any, keys: set[str]) -> Any:
    """Leave some keys out, at any depth."""
    if isinstance(value, dict):
        return {key: without(part, keys) for key, part in value.items() if key not in keys}
    return [without(part, keys) for part in value] if isinstance(value, list) else value


def compare(before: dict[str, Any], after: dict[str, Any]) -> int:
    """Print every place where two sets of results differ."""
    found = [
        line for name in sorted({*before, *after}) for line in differences(before.get(name), after.get(name), name)
    ]
    print("\n".join(found or [f"{len(after)} runs: the same results"]))
    return int(bool(found))


def differences(before: Any, after: Any, where: str) -> list[str]:
    """Say where two values differ."""
    if isinstance(before, dict) and isinstance(after, dict):
        keys = sorted({*before, *after})
        return [line for key in keys for line in differences(before.get(key), after.get(key), f"{where}.{key}")]
    if isinstance(before, list) and isinstance(after, list) and len(before) == len(after):
        pairs = enumerate(zip(before, after, strict=True))
        return [line for place, (one, two) in pairs for line in differences(one, two, f"{where}[{place}]")]
    return [] if before == after else [f"{where}: {before!r} became {after!r}"]


if __name__ == "__main__":
    sys.exit(main())
