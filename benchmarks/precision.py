"""Which precision is faster here: the matrix products of a frozen layer in float32 and in bfloat16, by rows at once.

One thread. Sizes are those of SmolLM2-135M's feed-forward layers; rows are the tokens of a packed batch. Conversions of
inputs and outputs count, as in `fedoel.policies.torch.base.HalfLinear`. Both are timed in turns, by processor time.

    python benchmarks/precision.py
"""

from __future__ import annotations

import argparse
import time
from statistics import median

import torch

from fedoel.policies.torch.base import HalfLinear

HIDDEN, INNER = 576, 1536
ROWS = (8, 32, 128, 512)


def seconds_of(layers: list[torch.nn.Linear], rows: int) -> float:
    """Processor time of a pass of some rows through each layer."""
    inputs, begun = torch.randn(rows, HIDDEN), time.process_time()
    for layer in layers:
        layer(inputs)
    return time.process_time() - begun


def ratios(rows: int, turns: int, count: int = 50) -> list[float]:
    """How many times as long bfloat16 takes, in each turn."""
    whole = [torch.nn.Linear(HIDDEN, INNER, bias=False) for _ in range(count)]
    half: list[torch.nn.Linear] = [HalfLinear.of(layer) for layer in whole]
    with torch.inference_mode():
        seconds_of(whole, rows), seconds_of(half, rows)
        return [seconds_of(half, rows) / seconds_of(whole, rows) for _ in range(turns)]


def main() -> None:
    """Print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--turns", type=int, default=21, help="comparisons of each size (default: 21)")
    turns = parser.parse_args().turns
    torch.set_num_threads(1)
    known = torch.cpu.get_capabilities()
    names = [name for name in ("avx512_bf16", "amx_bf16") if known.get(name)]
    print(f"bfloat16 in hardware: {', '.join(names) or 'none'}\n")
    print("| rows | bfloat16's time, in that of float32 |\n|---|---|")
    for rows in ROWS:
        found = ratios(rows, turns)
        print(f"| {rows} | {median(found):.2f} ({min(found):.2f}-{max(found):.2f}) |")


if __name__ == "__main__":
    main()
