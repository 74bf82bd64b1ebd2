"""What a device pays for each codec: seconds and memory of encoding, beside those of playing.

    python benchmarks/device_cost.py --games 12 --repeats 3

Each codec's turns are those that it played itself. Memory is what the process's peak grows by; it is measured in a
process of its own for each codec, since a peak never falls.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from statistics import median

GAME = "coin-collector level=102 turns=6"
CODECS = ("tactics", "prefix")


def main() -> None:
    """Measure every codec in a process of its own and print one line for each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--games", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--codec", choices=CODECS, help="measure this one here, and print JSON")
    arguments = parser.parse_args()
    if arguments.codec:
        print(json.dumps(measure(arguments.codec, arguments.games, arguments.repeats)))
        return
    print("| codec | turns | play, ms a turn | encode, ms a turn | encode / play | peak grows by |")
    print("|---|---|---|---|---|---|")
    for codec in CODECS:
        command = [sys.executable, __file__, "--codec", codec, *sys.argv[1:]]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        found = json.loads(done.stdout.splitlines()[-1])
        ratios = sorted(encode / play for play, encode in found["seconds"])
        play, encode = (1000 * median(pair[side] for pair in found["seconds"]) / found["turns"] for side in (0, 1))
        spread = f"{median(ratios):.3f} ({ratios[0]:.3f}-{ratios[-1]:.3f})"
        print(f"| {codec} | {found['turns']} | {play:.1f} | {encode:.2f} | {spread} | {found['megabytes']:.0f} MB |")


def measure(codec: str, count: int, repeats: int) -> dict[str, object]:
    """Play and encode the same games several times, each time with empty caches."""
    from fedoel.cli.main import set_environment

    set_environment()

    import numpy as np

    from fedoel.codecs.encoder import load_encoder
    from fedoel.games.player import play_episodes
    from fedoel.games.prepare import prepare
    from fedoel.games.splits import Split, game_seed
    from fedoel.policies.torch.model import load_model
    from fedoel.policies.torch.policy import TorchPolicy
    from fedoel.protocol.config import PolicyConfig
    from fedoel.protocol.host.cache import default_cache
    from fedoel.protocol.play import GameSpec

    cache, encoder = default_cache(), load_encoder(codec)
    games = [(GameSpec.parse(GAME), game_seed(Split.REHEARSAL, index)) for index in range(count)]
    prepare(games, cache)
    model, seconds, turns, grown = load_model(PolicyConfig(), cache), [], 0, 0
    for _ in range(repeats):
        policy = encoder.apply_context(TorchPolicy(model, {}), np.zeros(encoder.dimension, np.float32))
        start = time.perf_counter()
        played = [turn for trajectory in play_episodes(policy, games, range(count), cache) for turn in trajectory.turns]
        middle, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        encoder.gradient_and_fisher(policy, played, np.ones(len(played)))
        seconds.append((middle - start, time.perf_counter() - middle))
        grown = max(grown, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
        turns = len(played)
    return {"seconds": seconds, "turns": turns, "megabytes": grown / 1024}


if __name__ == "__main__":
    main()
