"""A GPU beside the CPU: log-probabilities of commands with several models, and a run of `quick` on each of the two.

    python benchmarks/gpu.py models/qwen2.5-coder-0.5b-instruct.gguf models/qwen2.5-coder-1.5b-instruct.gguf

Under ten minutes with sixteen processors. Both runs have the same games and seed; their sampled commands differ sooner
or later, since rounding does, so that wins are compared by their intervals. Exits with 1 if a log-probability in single
precision differs by more than `TOLERANCE`, or the intervals of a cycle do not overlap.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path
from time import perf_counter

import numpy as np
import torch

from fedoel.policies.backend import load_version
from fedoel.protocol.config import PolicyConfig
from fedoel.protocol.host.cache import default_cache
from fedoel.protocol.prompt_pack import read_pack
from fedoel.protocol.records.summary import Stats
from fedoel.protocol.situation import Situation
from fedoel.simulations.summary import percent

TOLERANCE = 1e-3
PACK = next((Path(__file__).parents[1] / "simulations" / "packs").glob("*.jsonl"))
RUN = "import sys; from fedoel.cli.main import main; sys.exit(main(sys.argv[1:]))"


def compare(base: str, situations: list[Situation], device: str) -> float:
    """Print how long a model takes for some situations on both, and return by how much log-probabilities differ."""
    config = PolicyConfig(base=base, precision="fp32", threads=torch.get_num_threads())
    scores, seconds = [], []
    for where in ("cpu", device):
        policy = load_version(replace(config, device=where), {}, "", default_cache())
        policy.score(situations[:4])  # what is loaded with the first pass does not count
        begun = perf_counter()
        scores.append(np.concatenate(policy.score(situations)))
        seconds.append(perf_counter() - begun)
    largest = float(np.abs(scores[0] - scores[1]).max())
    took = f"{seconds[0]:.2f} s on the CPU, {seconds[1]:.2f} s on {device}"
    print(f"{base or 'the packaged model'}: {took}, largest difference {largest:.1e}")
    return largest


def quick(device: str, seed: int, out: Path) -> subprocess.Popen[bytes]:
    """Start a run of `quick` on a device."""
    words = ["simulate", "--scale", "quick", "--seed", str(seed), "--out", str(out), "--quiet"]
    return subprocess.Popen([sys.executable, "-c", RUN, *words, "--set", f"policy.device={device}"])


def main() -> int:
    """Compare models, then runs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="*", help="files or folders of base models beside the packaged one")
    parser.add_argument("--device", default="cuda", help="of torch (default: cuda)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--prompts", type=int, default=64)
    arguments = parser.parse_args()
    if arguments.device == "cuda" and not torch.cuda.is_available():
        parser.error("torch sees no GPU: install its CUDA build, or name another --device")
    situations = [prompt.situation for prompt in read_pack(PACK).prompts[: arguments.prompts]]
    worst = max(compare(base, situations, arguments.device) for base in ("", *arguments.models))
    with tempfile.TemporaryDirectory() as folder:
        devices = ("cpu", arguments.device)
        outs = [Path(folder) / str(number) for number in range(len(devices))]
        begun = perf_counter()
        runs = [quick(device, arguments.seed, out) for device, out in zip(devices, outs, strict=True)]
        if any(run.wait() for run in reversed(runs)):
            return 1
        print(f"both runs took {perf_counter() - begun:.0f} s")
        cycles = [json.loads((out / "summary.json").read_text())["cycles"] for out in outs]
    apart = False
    for number, pair in enumerate(zip(*cycles, strict=True)):
        won = [Stats(**cycle["held_out"]) for cycle in pair]
        shown = (f"{device} {percent(stats)}" for device, stats in zip(devices, won, strict=True))
        print(f"cycle {number}: {', '.join(shown)}")
        apart |= won[0].high < won[1].low or won[1].high < won[0].low
    return int(worst > TOLERANCE or apart)


if __name__ == "__main__":
    sys.exit(main())
